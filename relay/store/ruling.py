"""Verdicts as the settling statements take them, the same for both databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relay.decide.outcome import fingerprint
from relay.store.contract import Ruled

# States, as statements list them.
GIVEN_UP = "'discarded', 'cancelled'"  # by an operator; the owner of the shard does what follows from it
UNTAKEN = f"{GIVEN_UP}, 'expired'"  # nothing is left to do, and the destination has not taken it
FINAL = f"'delivered', {UNTAKEN}"  # nothing is left to do

TEXT_LENGTH = 2000
DONE = ("delivered", "expired")  # of what a relay decides: nothing is left to do


def as_record(r: Ruled) -> dict[str, Any]:
    """One verdict, for JSON."""
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
    """The messages of which nothing may be left to do: what a former owner does not know may have been settled."""
    left = {r.message_id for r in ruled if r.state not in DONE and not r.is_unknown}
    return {r.message_id for r in ruled} - left


def finished_keys(ruled: Sequence[Ruled], skipping: Sequence[str]) -> list[tuple[str, str]]:
    """The (message, destination) pairs after which something blocked may have become free.

    A delivery that was blocked counts too: what it waited for may have been settled since it was decided. Not so when
    its predecessor is in memory, for that one lets go of it when its turn comes.
    """
    return [
        (r.message_id, r.destination)
        for r in ruled
        if r.is_keyed
        and (
            r.state in DONE
            or (r.state == "blocked" and not r.behind_memory)
            or (r.state == "dead" and r.destination in skipping)
        )
    ]


def storable(text: str | None) -> str | None:
    """What the world said, as both databases can hold it: no NUL, no half of a surrogate pair, and not a book."""
    if text is None:
        return None
    return text[:TEXT_LENGTH].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
