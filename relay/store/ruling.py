"""Encode verdicts for the settling statements, the same for both databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relay.decide.outcome import fingerprint
from relay.decide.verdict import State
from relay.store.contract import Ruled

TEXT_LENGTH = 2000
DONE = (State.DELIVERED, State.EXPIRED)  # verdicts of a relay that are final


def as_record(r: Ruled) -> dict[str, Any]:
    """Return one verdict as JSON."""
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
    """Return the messages that may be finished. A delivery with the verdict of a former owner may have been settled."""
    left = {r.message_id for r in ruled if r.state not in DONE and not r.is_unknown}
    return {r.message_id for r in ruled} - left


def finished_keys(ruled: Sequence[Ruled], skipping: Sequence[str]) -> list[tuple[str, str]]:
    """Return the (message, destination) pairs that may release a blocked delivery of their key.

    A delivery that is blocked now counts, too: its predecessor may have been settled in the meantime. It does not count
    if its predecessor is in memory, which releases it later.
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
    """Return text from outside in a form that both databases can store: short, without NUL and lone surrogates."""
    if text is None:
        return None
    return text[:TEXT_LENGTH].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
