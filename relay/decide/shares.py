"""Decide which relay owns which shards: each relay computes fair shares from data that all relays see.

Every relay sees the same two things in the server's lock table: which relays are alive (each holds a presence lock) and
which relay holds which shard. The relays sort the living relays, and each takes the share of its rank: 64 // alive, and
one more for the first 64 % alive ranks. A shard that stays free for two beats is in the share of a relay that is alive
but cannot own it. Another relay may take it beyond its own share, and gives it back only to a peer that lacks shards
and finds none free.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from outbox.tables import SHARD_COUNT

FREE_BEATS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes at this beat.

    Args:
        take: Shards to try to lock, in this order, until as many as are wanted are locked.
        give: Shards to hand back.
        wants: How many shards this relay lacks while none is free; peers with too many read it and hand shards back.
    """

    take: Sequence[int]
    give: Sequence[int]
    wants: int


def fair_share(rank: int, alive: int) -> int:
    """Return the share of the relay with this rank among the living."""
    return SHARD_COUNT // alive + (1 if rank < SHARD_COUNT % alive else 0)


def plan_shares(
    me: int,
    wants_of: Mapping[int, int],
    held: Collection[int],
    mine: Collection[int],
    free_beats: Mapping[int, int],
    only: Collection[int] | None = None,
) -> Plan:
    """Decide what to take and what to hand back.

    Args:
        me: The number of this relay.
        wants_of: For each living relay, this one included: how many shards it asks for.
        held: The shards that have an owner, those of this relay included.
        mine: The shards that this relay holds.
        free_beats: For each shard without an owner: for how many beats in a row it has had none.
        only: Just after a restart: the only shards to take; peers are asked for none.
    """
    alive = sorted({me, *wants_of})
    rank = alive.index(me)
    share = fair_share(rank, len(alive))
    start = sum(fair_share(r, len(alive)) for r in range(rank))
    free = [s for s in _from(start) if s not in held and s not in mine]
    lacking = max(share - len(mine), 0)
    take = free[:lacking]
    left_over = [s for s in free[lacking:] if free_beats.get(s, 0) >= FREE_BEATS]
    excess = len(mine) - share
    asked = sum(wants for number, wants in wants_of.items() if number != me)
    give = _last(mine, min(excess, asked)) if excess > 0 and asked > 0 else []
    if only is not None:
        return Plan([s for s in free if s in only], give, 0)
    return Plan([*take, *([] if asked else left_over)], give, max(lacking - len(take), 0))


def _from(start: int) -> list[int]:
    return [(start + i) % SHARD_COUNT for i in range(SHARD_COUNT)]


def _last(shards: Collection[int], count: int) -> list[int]:
    return sorted(shards)[len(shards) - count :]
