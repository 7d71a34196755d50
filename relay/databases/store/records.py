"""The values that pass between the relay and a database besides rows: verdicts, and the results of beats and sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.databases.store.rows import Parked
from relay.decide.shared_state import SharedState


@dataclass(frozen=True, slots=True)
class Ruled:
    """One delivery's verdict, on its way into the database; `relay.databases.store.ruling` encodes it.

    Args:
        state: The new state, see `relay.decide.verdict.State`.
        generation: The generation of the delivery, or of its message, when it was read. An operator's change raises it;
            a row with another generation stays as it is.
        attempts: The attempts charged so far.
        delay_s: The seconds until a retry is due; it has no meaning in other states.
        reason: Why it was not delivered. ``None`` keeps the last reason.
        log: The last attempt, for the log of the delivery; ``None``: there was no attempt.
        behind_memory: Its predecessor is in the memory of this relay.
    """

    message_id: str
    destination: str
    state: str
    generation: int
    attempts: int
    delay_s: float
    reason: str | None
    log: dict[str, Any] | None
    behind_memory: bool = False
    is_keyed: bool = True  # it may have an ordering key
    is_unknown: bool = False  # the verdict of a former owner, written only if there is no later verdict


@dataclass(frozen=True, slots=True)
class Batch:
    """Verdicts that are settled together, in one transaction.

    Args:
        messages: (id, generation) of messages that were read from ``outbox_message`` and have all their verdicts here.
        ruled: The verdicts on these messages, and on deliveries that were read back from ``outbox_delivery``.
        finishes: Whether messages without open deliveries move to the history.
    """

    messages: Sequence[tuple[str, int]]
    ruled: Sequence[Ruled]
    finishes: bool = True


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of scanning one slice of the deliveries.

    Args:
        next_at: The beginning of the next slice; ``None`` if this was the last slice.
        parked: The deliveries that were blocked without an open predecessor and are parked now.
        discarded: (message, destination) pairs that only have to be finished.
        holds_keys: Whether any delivery holds its ordering key.
    """

    next_at: int | None
    parked: Sequence[Parked] = ()
    discarded: Sequence[tuple[str, str]] = ()
    holds_keys: bool = False


@dataclass(frozen=True, slots=True)
class Peers:
    """The other relays at a beat, by the database's own lock table and clock.

    Args:
        me: The number of this relay.
        wants_of: Live relay → how many shards it asks for.
        held: The shards that have an owner, including those of this relay.
        generation: The generation of the registered destinations.
        shared_states: Destination → the shared knowledge about it.
        ended: Relays (by id) whose sessions were ended because they had stopped beating.
        schema: The version of the schema, and the oldest release that may use it.
        clock_s: The time by the database's clock, in seconds since 1970.
    """

    me: int
    wants_of: Mapping[int, int]
    held: frozenset[int]
    generation: int
    shared_states: Mapping[str, SharedState] = field(default_factory=dict)
    ended: Sequence[str] = ()
    schema: tuple[int, str] = (0, "0")
    clock_s: float = 0.0
