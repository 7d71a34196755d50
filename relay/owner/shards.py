"""Ownership: take shards, keep them by beats, and hand them back.

A shard gets another owner in two ways. When a session ends, the server releases all its shards at once; peers see free
shards at their next beat. A relay that has more than its share, while a peer lacks some, hands back in order: it stops
reading them, releases entries that have not started, waits until the others are settled, and only then unlocks.

When the server was restarted, all relays lost their sessions at once, and each one knows best what it had delivered. So
for `AFTER_RESTART_S` a relay takes only the shards that it held before, and settles those first: a restart costs no
duplicates. When a single process of the server dies, PostgreSQL ends all sessions and continues under the same
postmaster, so the age of the server does not show it. So a relay that has just lost a session with shards also takes
only these: other relays may have lost theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence, Set
from threading import Event as Signal

import structlog

from outbox.errors import ConfigurationDiffers
from outbox.tables import SHARD_COUNT
from relay.decide.crashes import Record
from relay.decide.shares import plan_shares
from relay.owner.reader import Reader
from relay.platform.schema import verify_version
from relay.seam import OwnersSeam
from relay.store.contract import Inherited, Peers, Session
from relay.store.rows import Cursors

log = structlog.get_logger("relay")

AFTER_RESTART_S = 2.0
SHARDS = range(SHARD_COUNT)


class Ownership:
    """The shards of one session.

    Args:
        session: The session that holds their locks.
        reader: Reads them.
        cursors: The shards that are read, and the positions.
        seam: Reaches the event loop, which holds entries of them.
        generation: The generation of registered destinations that this relay was started with.
        held_before: The shards that this relay held in its last session.
        clock: The time, in seconds.
    """

    def __init__(
        self,
        session: Session,
        reader: Reader,
        cursors: Cursors,
        seam: OwnersSeam,
        *,
        generation: int,
        held_before: Collection[int],
        clock: Callable[[], float],
    ) -> None:
        self._session, self._reader, self._cursors = session, reader, cursors
        self._tell, self._view = seam.tell, seam.view
        self._generation, self._clock = generation, clock
        self._held_before = held_before
        since_s = 0.0 if held_before else session.server_age_s()
        self._anything_from = self._clock() + AFTER_RESTART_S - since_s
        self._giving: list[int] = []
        self._released = Signal()
        self._free_beats: dict[int, int] = {}
        self._lacking = 0
        self._peers: Set[int] = frozenset()

    @property
    def shards(self) -> list[int]:
        """The shards of this session, including those that it is handing back."""
        return sorted([*self._cursors.ready, *self._giving])

    def beat(self) -> Peers:
        """Beat; return the state of the other relays."""
        asked_at = self._clock()
        peers = self._session.beat(self.shards, self._lacking)
        for relay in peers.ended:
            log.warning("peer_ended", peer=relay, reason="it had not beaten for two leases and still held shards")
        self._tell.set_clock(peers.clock_s - self._clock())  # late rather than early
        self._tell.follow(peers.shared_states, asked_at, len(peers.wants_of) <= 1)
        self._tell.split()
        if self._peers - peers.wants_of.keys():
            self._tell.peer_ended()
        self._peers = frozenset(peers.wants_of)
        return peers

    def verify(self, peers: Peers) -> None:
        """Check that this relay may continue.

        Raises:
            ConfigurationDiffers: Other destinations have been registered since this relay was started.
            SchemaError: A migration has made the schema one that this release may not use.
        """
        verify_version(*peers.schema)
        if peers.generation != self._generation:
            raise ConfigurationDiffers(
                f"other destinations were registered (generation {peers.generation}, and this relay was started at "
                f"{self._generation}), so it owns nothing any more: restart it with the configuration that was applied"
            )

    def balance(self, peers: Peers) -> None:
        """Take this relay's share of the shards; begin to hand back those beyond it."""
        for shard in SHARDS:
            self._free_beats[shard] = 0 if shard in peers.held else self._free_beats.get(shard, 0) + 1
        only = None if self.may_take_anything else self._held_before
        plan = plan_shares(peers.me, peers.wants_of, peers.held, self.shards, self._free_beats, only)
        self._lacking = plan.wants
        self._take(plan.take)
        if self._giving:
            # An attempt that was under way has failed since, and waits to be repeated by the next owner.
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
        taken = self._session.take(shards, self._view.skipping) if shards else []
        if taken:
            inherited = self._session.inherited()
            self._tell.take_over(inherited)
            self._reader.start_over(taken)
            log.info("shards_taken", taken=len(taken), owns=len(self.shards))
            _report_dead_owners(inherited)

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
        self._session.give(self._giving)
        self._tell.leave(self._giving)
        log.info("shards_handed_back", given=len(self._giving), owns=len(self._cursors.ready))
        self._giving = []

    def give_everything(self) -> None:
        """Hand all shards back at the orderly end: each entry is settled, or was never started."""
        if self.shards:
            self._session.give(self.shards)
            self._cursors.ready.clear()
            self._giving = []


def _report_dead_owners(inherited: Sequence[Inherited]) -> None:
    """Log one line for each owner that did not hand back: its shards, and its known deliveries under way."""
    for owner in sorted({i.owner or "" for i in inherited if i.is_dirty}):
        shards = [i for i in inherited if i.is_dirty and (i.owner or "") == owner]
        started = sorted(d for i in shards for d in Record.parse(i.record).started)
        under_way = [f"{destination}: {message_id}" for message_id, destination in started]
        log.warning("shards_inherited", owner=owner, shards=len(shards), under_way=under_way[:10])
