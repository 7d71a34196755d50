"""Take shards, keep them by beats, and hand them back.

A shard gets another owner in two ways. When a session ends, the server releases all its shards at once, and peers see
the free shards at their next beat. When a relay has more than its share while a peer has less, it hands shards back in
order: it stops reading them, releases entries that have not started, waits until all other entries are settled, and
only then unlocks.

When the server restarts, all relays lose their sessions at once, and each relay knows best what it had delivered. So
for `AFTER_RESTART_S` a relay takes only the shards that it held before, and settles those first: a restart causes no
duplicates. When a single process of the server dies, PostgreSQL ends all sessions and continues under the same
postmaster, so the server's age does not show that sessions were lost. For this case a relay that has just lost a
session also takes only the shards that it had in it: other relays may have lost theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence, Set
from threading import Event as Signal

import structlog

from outbox.errors import ConfigurationDiffers
from outbox.tables import SHARD_COUNT
from relay.databases.schema import verify_version
from relay.databases.store.contract import Ownership
from relay.databases.store.inheriting import Inherited
from relay.databases.store.records import Peers
from relay.databases.store.rows import Cursors
from relay.decide.failures.crashes import Record
from relay.decide.shares import plan_shares
from relay.owner.reader import Reader
from relay.seam import OwnersSeam

log = structlog.get_logger("relay")

AFTER_RESTART_S = 2.0
SHARDS = range(SHARD_COUNT)


class Shards:
    """The shards of one session.

    Args:
        ownership: Holds their locks.
        reader: Reads them.
        cursors: The shards that are read, and the positions up to which they were read.
        seam: Reaches the event loop, which holds entries of them.
        generation: The generation of registered destinations that this relay was started with.
        held_before: The shards that this relay held in its last session; ``None``: it had no session before.
        clock: The time, in seconds.
    """

    def __init__(
        self,
        ownership: Ownership,
        reader: Reader,
        cursors: Cursors,
        seam: OwnersSeam,
        *,
        generation: int,
        held_before: Collection[int] | None,
        clock: Callable[[], float],
    ) -> None:
        self._ownership, self._reader, self._cursors = ownership, reader, cursors
        self._tell, self._crashes, self._view, self._lease = seam.tell, seam.crashes, seam.view, seam.lease
        self._generation, self._clock = generation, clock
        self._held_before = held_before or ()
        since_s = ownership.server_age_s() if held_before is None else 0.0
        self._anything_from = self._clock() + AFTER_RESTART_S - since_s
        self._giving: list[int] = []
        self._released = Signal()
        self._free_beats: dict[int, int] = {}
        self._lacking = 0
        self._taken_count = 0  # since the last report
        self._peers: Set[int] = frozenset()

    @property
    def owned(self) -> list[int]:
        """The shards of this session, including those that it is handing back."""
        return sorted([*self._cursors.ready, *self._giving])

    def beat(self) -> Peers:
        """Beat; return the state of the other relays."""
        asked_at = self._clock()
        peers = self._ownership.beat(self.owned, self._lacking)
        for relay in peers.ended:
            log.warning("peer_ended", peer=relay, reason="it had not beaten for two leases and still held shards")
        self._lease.clock_offset_s = peers.clock_s - self._clock()  # late rather than early
        self._tell.follow(peers.shared_states, asked_at, len(peers.wants_of) <= 1)
        self._tell.split()
        if self._peers - peers.wants_of.keys():
            self._crashes.disturb()
        self._peers = frozenset(peers.wants_of)
        return peers

    def verify(self, peers: Peers) -> None:
        """Check whether this relay may continue.

        Raises:
            ConfigurationDiffers: Other destinations have been registered since this relay was started.
            SchemaError: A migration has changed the schema to a version that this release may not use.
        """
        verify_version(*peers.schema)
        if peers.generation != self._generation:
            raise ConfigurationDiffers(
                f"other destinations were registered (generation {peers.generation}, and this relay was started at "
                f"{self._generation}), so it owns nothing any more: restart it with the configuration that was applied"
            )

    def balance(self, peers: Peers) -> None:
        """Take this relay's share of the shards; begin to hand back any shards beyond its share."""
        for shard in SHARDS:
            self._free_beats[shard] = 0 if shard in peers.held else self._free_beats.get(shard, 0) + 1
        only = None if self.may_take_anything else self._held_before
        plan = plan_shares(peers.me, peers.wants_of, peers.held, self.owned, self._free_beats, only)
        self._lacking = plan.wants
        self._take(plan.take)
        if self._giving:
            # An attempt that was under way has failed in the meantime; the next owner will repeat it.
            self._tell.release(self._giving)
        elif plan.give:
            self._start_giving([s for s in plan.give if s in self._cursors.ready])

    @property
    def is_changing(self) -> bool:
        """Whether this relay lacks shards, or is handing some back: then beats are shorter."""
        return self._lacking > 0 or bool(self._giving) or not self.may_take_anything

    @property
    def may_take_anything(self) -> bool:
        """Whether this relay may take shards that it did not hold before."""
        return self._clock() >= self._anything_from

    def _take(self, shards: Sequence[int]) -> None:
        inherited = self._ownership.take(shards) if shards else []
        if inherited:
            self._crashes.take_over(inherited)
            self._reader.start_over([each.shard for each in inherited])
            self._taken_count += len(inherited)
            _report_dead_owners(inherited)

    def report(self) -> None:
        """Log the shards that were taken. Called after a turn that worked: in an outage each session may take some."""
        if self._taken_count:
            log.info("shards_taken", taken=self._taken_count, owns=len(self.owned))
            self._taken_count = 0

    def _start_giving(self, shards: list[int]) -> None:
        self._reader.leave(shards)
        self._giving = shards
        self._released.clear()
        # Posted after all pages of these shards, so no page can bring entries of them again.
        self._tell.release(shards, self._released.set)

    def finish_giving(self) -> None:
        """Unlock the shards that are being handed back and have no entry under way or unsettled."""
        if not self._giving or not self._released.is_set() or self._view.count_in(self._giving):
            return
        self._ownership.give(self._giving)
        self._crashes.leave(self._giving)
        log.info("shards_handed_back", given=len(self._giving), owns=len(self._cursors.ready))
        self._giving = []

    def give_everything(self) -> None:
        """Hand all shards back at the orderly end, when each entry is settled or was never started."""
        if self.owned:
            self._ownership.give(self.owned)
            self._cursors.ready.clear()
            self._giving = []


def _report_dead_owners(inherited: Sequence[Inherited]) -> None:
    """Log one line for each owner that did not hand back: its shards, and its known deliveries under way."""
    for owner in sorted({i.owner or "" for i in inherited if i.is_dirty}):
        shards = [i for i in inherited if i.is_dirty and (i.owner or "") == owner]
        started = sorted(d for i in shards for d in Record.parse(i.record).started)
        under_way = [f"{destination}: {message_id}" for message_id, destination in started]
        log.warning("shards_inherited", owner=owner, shards=len(shards), under_way=under_way[:10])
