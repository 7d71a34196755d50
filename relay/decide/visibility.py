"""Find messages that commit late.

A cursor over positions reads every row once, at a cost that does not depend on history. But a row gets its position
when it is inserted, and becomes visible when its transaction commits, and transactions may commit in another order. So
a row below the cursor may appear at any time. To search for it by position would mean reading the left edge of the
index repeatedly, where settled rows remain until vacuum. So the relay finds it by *visibility*: a row that has become
visible since the last look was written by a transaction that was still running then (in that snapshot's `xip`) or that
began later (at or above its `xmax`).

Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Horizon:
    """The transactions that were not visible at the last look.

    Args:
        xmax: Transactions with this id or a higher one began later.
        running: The transactions below `xmax` that were still running.
    """

    xmax: int
    running: tuple[int, ...] = ()

    @classmethod
    def parse(cls, snapshot: str) -> Horizon:
        """Return the horizon of a ``pg_snapshot``, from its text: ``xmin:xmax:xip,xip…``."""
        _xmin, xmax, xip = snapshot.split(":")
        return cls(int(xmax), tuple(int(x) for x in xip.split(",")) if xip else ())

    def is_past(self, other: Horizon) -> bool:
        """Return whether every transaction that was running at the other horizon has ended at this one."""
        return all(x >= other.xmax for x in self.running)
