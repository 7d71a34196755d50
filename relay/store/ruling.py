"""Verdicts in the form that the settling statements take, the same for both databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relay.decide.outcome import fingerprint
from relay.decide.verdict import State
from relay.store.contract import Ruled

TEXT_LENGTH = 2000
DONE = (State.DELIVERED, State.EXPIRED)  # of what a relay decides: nothing is left to do


def as_record(r: Ruled) -> dict[str, Any]:
    """Return one verdict in the form of JSON."""
    reason = storable(r.reason)
    return {
        "message_id": r.message_id,
        "destination": r.destination,
        "state": r.state,
        "generation": r.generation,
        "attempts": r.attempts,
        "delay_s": r.delay_s,
        "is_unknown": r.is_unknown,
        "reason": reason,
        "fingerprint": fingerprint(reason),
        "log": [{k: storable(v) if isinstance(v, str) else v for k, v in r.log.items()}] if r.log else [],
    }


def finishable_messages(ruled: Sequence[Ruled]) -> set[str]:
    """Return the messages of which nothing may be left to do.

    A delivery of which a former owner knows nothing may have been settled.
    """
    left = {r.message_id for r in ruled if r.state not in DONE and not r.is_unknown}
    return {r.message_id for r in ruled} - left


def finished_keys(ruled: Sequence[Ruled], skipping: Sequence[str]) -> list[tuple[str, str]]:
    """Return the (message, destination) pairs behind which a blocked delivery may have become free.

    A delivery that was blocked counts too: its predecessor may have been settled since it was decided. It does not
    count when its predecessor is in memory: that one releases it when its turn comes.
    """
    return [
        (r.message_id, r.destination)
        for r in ruled
        if r.is_keyed
        and (
            r.state in DONE
            or (r.state == State.BLOCKED and not r.behind_memory)
            or (r.state == State.DEAD and r.destination in skipping)
        )
    ]


def storable(text: str | None) -> str | None:
    """Return text from outside as both databases can hold it: short, without NUL and halves of surrogate pairs."""
    if text is None:
        return None
    return text[:TEXT_LENGTH].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
