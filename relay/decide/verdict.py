"""The states of messages and deliveries, and the verdict on one delivery.

A *message* has a state as a whole while it is in ``outbox_message``:

| state     | the message …                               |
|-----------|---------------------------------------------|
| ready     | is delivered, or about to be                |
| scheduled | is not due yet                              |
| held      | waits for what its deliveries wait for      |
| unrouted  | is wanted by no subscription                |

A *delivery* has a row in ``outbox_delivery``, and therefore a state, only while it or another delivery of its message
is an exception. The first six states are verdicts of a relay; the last two are decisions of an operator.

| state     | the delivery …                                              | in the row          |
|-----------|-------------------------------------------------------------|---------------------|
| delivered | is done: the destination took it                            |                     |
| retry     | waits for its backoff; the attempt was charged              | ``due_at``          |
| dead      | was given up: a dead letter, which waits for an operator    | ``reason``          |
| parked    | can run as soon as its destination has room                 |                     |
| blocked   | waits behind an earlier message of its ordering key         |                     |
| expired   | is done without having been taken: its time had passed      |                     |
| discarded | is done: an operator gave the dead letter up                |                     |
| cancelled | is done: an operator took it back before it was sent        |                     |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """A state of a message or of a delivery. Its value is its name in the tables, in JSON output and in metrics."""

    READY = "ready"
    SCHEDULED = "scheduled"
    HELD = "held"
    UNROUTED = "unrouted"

    PARKED = "parked"
    BLOCKED = "blocked"
    RETRY = "retry"
    DEAD = "dead"
    DELIVERED = "delivered"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


READ_PATH = (State.READY, State.SCHEDULED)  # a message without an exceptional delivery
WAITING = (State.PARKED, State.BLOCKED, State.RETRY)  # a delivery that is still to be made
CHARGED = (State.RETRY, State.DEAD)  # an attempt counts against the message
GIVEN_UP = (State.DISCARDED, State.CANCELLED)  # by an operator; the owner of the shard does the rest
UNTAKEN = (*GIVEN_UP, State.EXPIRED)  # done, and the destination has not taken it
FINAL = (State.DELIVERED, *UNTAKEN)  # nothing is left to do


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one delivery.

    Args:
        state: The new state of the delivery.
        charged: How many attempts count against the message.
        delay_ceiling_s: For a retry: the longest it may wait, in seconds, before jitter.
        reason: Why, for people.
        detail: What the other side said, truncated.
        delay_floor_s: For a retry: a fixed wait in addition, in seconds.
        behind_memory: For a blocked delivery: its predecessor is in the relay's memory, not in the table.
    """

    state: State
    charged: int = 0
    delay_ceiling_s: float = 0.0
    reason: str | None = None
    detail: str = ""
    behind_memory: bool = False
    delay_floor_s: float = 0.0


DELIVERED = Verdict(State.DELIVERED)
PARKED = Verdict(State.PARKED)
# Parked for lack of room, after an attempt that failed uncharged: deliveries that were not tried go first.
TRIED = Verdict(State.PARKED)
EXPIRED = Verdict(State.EXPIRED, reason="its time had passed before an attempt began")
BLOCKED = Verdict(State.BLOCKED)
# Blocked behind a message that is only in the memory of this relay, and not in the table.
BEHIND = Verdict(State.BLOCKED, behind_memory=True)
# Parked in the table, while another entry represents it in this relay's memory and goes on.
HANDED_OVER = Verdict(State.PARKED)


def retry(
    delay_ceiling_s: float, reason: str, detail: str = "", *, charged: int = 1, delay_floor_s: float = 0.0
) -> Verdict:
    """Return the verdict on a delivery whose attempt failed and is repeated after a backoff."""
    return Verdict(State.RETRY, charged, delay_ceiling_s, reason, detail, delay_floor_s=delay_floor_s)


def put_off(delay_s: float) -> Verdict:
    """Return the verdict on a due retry that finds no room: it waits once more, uncharged."""
    return Verdict(State.RETRY, delay_ceiling_s=delay_s / 2, delay_floor_s=delay_s / 2)


def dead(reason: str, detail: str = "", *, charged: int = 1) -> Verdict:
    """Return the verdict on a delivery that is given up."""
    return Verdict(State.DEAD, charged, 0.0, reason, detail)
