"""What we do about it: the verdict on one delivery, with a constructor for each that makes sense.

| verdict   | the delivery …                                              | row in outbox_delivery  |
|-----------|-------------------------------------------------------------|-------------------------|
| delivered | is done                                                     | only while a sibling is not |
| retry     | waits for its backoff; the attempt was charged              | `retry`, with `due_at`  |
| dead      | waits for an operator                                       | `dead`, with `reason`   |
| parked    | can run as soon as its destination has room                 | `parked`                |
| blocked   | waits behind an earlier message of its ordering key         | `blocked`               |
| expired   | is done without having been taken: its time had passed      | only while a sibling is not |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["delivered", "retry", "dead", "parked", "blocked", "expired"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one delivery.

    Args:
        state: One of the table above.
        charged: How many attempts count against the message.
        delay_ceiling_s: For a retry: the longest it may wait, in seconds, before jitter.
        reason: Why, for people.
        detail: What the other side said, truncated.
        delay_floor_s: For a retry: what it waits in any case, in seconds, on top of that.
        behind_memory: For a blocked delivery: its predecessor is in the relay's memory, not in the table.
    """

    state: State
    charged: int = 0
    delay_ceiling_s: float = 0.0
    reason: str | None = None
    detail: str = ""
    behind_memory: bool = False
    delay_floor_s: float = 0.0


DELIVERED = Verdict("delivered")
PARKED = Verdict("parked")
EXPIRED = Verdict("expired", reason="its time had passed before an attempt began")
BLOCKED = Verdict("blocked")
# Blocked, too, but behind a message that this relay has in memory and the table does not know of.
BEHIND = Verdict("blocked", behind_memory=True)
# Parked in the table, while another entry stands for it in this relay's memory and goes on.
HANDED_OVER = Verdict("parked")


def retry(
    delay_ceiling_s: float, reason: str, detail: str = "", *, charged: int = 1, delay_floor_s: float = 0.0
) -> Verdict:
    return Verdict("retry", charged, delay_ceiling_s, reason, detail, delay_floor_s=delay_floor_s)


def dead(reason: str, detail: str = "", *, charged: int = 1) -> Verdict:
    return Verdict("dead", charged, 0.0, reason, detail)
