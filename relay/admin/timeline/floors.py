"""Find the oldest ready messages of each shard, however many settled rows lie before them in the index.

Settled rows stay in the index until vacuum, which a long transaction holds up. To pass over a million of them takes a
second. So a walk is cut into pieces, remembers for each shard how far it came, and ends when its share of the time is
used up. The next sample continues there. A second walk follows the first one, for messages that became ready behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from outbox.tables import SHARD_COUNT
from relay.databases.store.backlog import Ask

SPAN = 10_000  # positions of the first piece of a walk; each piece is twice as long as the last one


@dataclass
class Floors:
    """How far the two walks came, by shard.

    Attributes:
        first: No message before this position was ready when the first walk passed.
        second: How far the second walk came. It ends at the position of the first walk, and begins again at 0.
        end: The last position that had been given out by the time of the last sample. Later positions may still be
            uncommitted.
    """

    first: list[int] = field(default_factory=lambda: [0] * SHARD_COUNT)
    second: list[int] = field(default_factory=lambda: [0] * SHARD_COUNT)
    end: int = 0

    def walk(self, ask: Ask, last: int) -> tuple[list[Any], bool]:
        """Return the first ready messages of each shard, and whether the first walk reached all of them.

        Args:
            ask: Reads from the index.
            last: The last position that has been given out.
        """
        found, is_complete = self._first_walk(ask, last)
        if is_complete:
            found += self._second_walk(ask)
        self.end = last
        return found, is_complete

    def _first_walk(self, ask: Ask, last: int) -> tuple[list[Any], bool]:
        found: list[Any] = []
        left, span, at = list(range(SHARD_COUNT)), SPAN, list(self.first)
        while left:
            rows = ask(left, [at[shard] for shard in left], span)
            if rows is None:
                return found, False
            found += rows
            position = _lowest(rows)
            for shard in left:
                at[shard] = position.get(shard, at[shard] + span)
                self.first[shard] = max(self.first[shard], min(at[shard], self.end + 1))
            left = [shard for shard in left if shard not in position and at[shard] <= last]
            span *= 2
        return found, True

    def _second_walk(self, ask: Ask) -> list[Any]:
        found: list[Any] = []
        span = SPAN
        while left := [shard for shard in range(SHARD_COUNT) if self.second[shard] < self.first[shard]]:
            rows = ask(left, [self.second[shard] for shard in left], span)
            if rows is None:
                return found
            found += rows
            position = _lowest(rows)
            for shard in left:
                if position.get(shard, self.first[shard]) < self.first[shard]:
                    self.first[shard] = position[shard]
                self.second[shard] += span
            span *= 2
        self.second = [0] * SHARD_COUNT
        return found


def _lowest(rows: Sequence[Any]) -> dict[int, int]:
    found: dict[int, int] = {}
    for row in rows:
        found[row.shard] = min(row.position, found.get(row.shard, row.position))
    return found
