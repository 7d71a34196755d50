"""Encode verdicts and findings for the statements that write them; this is the same for all databases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from relay.databases.store.records import Batch, Ruled
from relay.decide.outcome import fingerprint, storable
from relay.decide.shared_state import Finding
from relay.decide.verdict import State

DONE = (State.DELIVERED, State.EXPIRED)  # verdicts of a relay that are final


def as_record(r: Ruled, codec: str = "utf-8") -> dict[str, Any]:
    """Return a verdict as JSON, in characters that the database has."""
    reason = _stored(r.reason, codec)
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
        "log": [{k: storable(v, codec) if isinstance(v, str) else v for k, v in r.log.items()}] if r.log else [],
    }


def finishable_messages(batch: Batch) -> set[str]:
    """Return the messages that may be finished. Deliveries with a former owner's verdict may be settled already."""
    ruled = batch.ruled if batch.finishes else []
    left = {r.message_id for r in ruled if r.state not in DONE and not r.is_unknown}
    return {r.message_id for r in ruled} - left


def finished_keys(ruled: Sequence[Ruled], skipping: Sequence[str]) -> list[tuple[str, str]]:
    """Return the (message, destination) pairs that may release a blocked delivery of their key.

    This includes a delivery that is blocked now, because its predecessor may have been settled in the meantime, unless
    the predecessor is in memory: its end releases the delivery later.
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


def as_parameters(finding: Finding, codec: str = "utf-8") -> dict[str, Any]:
    """Return a finding as the parameters of the statement that reports it, in characters that the database has."""
    return asdict(replace(finding, reason=_stored(finding.reason, codec), note=_stored(finding.note, codec)))


def _stored(text: str | None, codec: str) -> str | None:
    return None if text is None else storable(text, codec)
