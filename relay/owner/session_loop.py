"""One session's time in office: what it owns, reads and settles, turn by turn, in the owning thread.

Each turn: note what is about to be sent, settle what everybody took, beat if it is time, read if there is room, and
only then settle exceptions: what they cost shall not be the latency of those who take everything. At the end of a turn
comes a part of what is swept (see `relay.owner.sweeper`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from time import monotonic

from outbox.errors import Unusable
from relay.delivery.dispatcher import Dispatcher
from relay.observe.metrics import Metrics
from relay.owner.reader import Reader
from relay.owner.settler import Settler, Unconfirmed
from relay.owner.shards import OnLoop, Ownership
from relay.owner.sweeper import Sweeper
from relay.owner.unreadable import Unreadable
from relay.owner.withdrawals import Withdrawals
from relay.settings import Settings
from relay.store.contract import Cursors, Peers, Session

WORTH_A_TURN = 100  # rows read or settled: after fewer, more may gather until the next short poll
FEW, MANY = 25, 200  # exceptions settled between two looks: in a stream, in a drain
HASTE = 4  # so many beats in the time of one, while shards change hands


class Tenure:
    """What one session does until it ends or is lost.

    Args:
        session: Who owns.
        epoch: The session's number.
        dispatcher: Who gets the pages and gives the verdicts.
        settings: How often, how much.
        generation: The generation of the registered destinations this relay was configured for.
        held_before: The shards that this relay held in its last session.
        unconfirmed: Entries whose settling may not be on disk yet; outlives the session.
        metrics: What is counted here.
        on_loop: Runs a function on the dispatcher's event loop, later and in order.
        on_dismissal: Called on the loop when this relay must not go on, with the reason.
    """

    def __init__(
        self,
        session: Session,
        epoch: int,
        dispatcher: Dispatcher,
        settings: Settings,
        *,
        generation: int,
        held_before: Collection[int],
        unconfirmed: Unconfirmed,
        metrics: Metrics,
        on_loop: OnLoop,
        on_dismissal: Callable[[Unusable], None],
    ) -> None:
        self._session, self._epoch, self._dispatcher, self._settings = session, epoch, dispatcher, settings
        self._metrics, self._on_loop, self._on_dismissal = metrics, on_loop, on_dismissal
        cursors = Cursors()
        self._reader = Reader(
            session,
            epoch,
            dispatcher,
            cursors,
            unreadable=Unreadable(
                session,
                {name: each.events for name, each in settings.destinations.items()},
                skipping=dispatcher.skipping,
                count=metrics.count,
            ),
            page_size=min(settings.page_size, max(settings.window // 2, 1)),  # so that there is room for one ahead
            post=lambda page: on_loop(dispatcher.accept, page, epoch),
        )
        self._ownership = Ownership(
            session,
            self._reader,
            cursors,
            dispatcher,
            generation=generation,
            held_before=held_before,
            on_loop=on_loop,
        )
        self._settler = Settler(
            session,
            epoch,
            skipping=dispatcher.skipping,
            unconfirmed=unconfirmed,
            note=self._reader.note_exceptions,
            forget=lambda entries: on_loop(dispatcher.forget, entries),
            reread=self._reader.reread,
        )
        self._withdrawals = Withdrawals(dispatcher, on_loop)
        self._sweeper = Sweeper(
            session, cursors, self._reader, self._withdrawals, skipping=dispatcher.skipping, count=metrics.count
        )
        self._next_beat = 0.0
        self._busy_until = self._looked_at = 0.0
        self._is_ending = False
        self._is_settled_in = False
        self._settled_count = 0
        self._settles_meanwhile = False

    @property
    def shards(self) -> list[int]:
        return self._ownership.shards

    @property
    def caught_up(self) -> bool:
        """Whether everything that could be found was found and has arrived."""
        is_clean = not self._sweeper.is_hurried and not self._withdrawals.are_pending
        return self._is_settled_in and self._reader.caught_up and is_clean

    def begin(self) -> None:
        """Settle what was taken before this session, register, and take a share at once, or with the next beat.

        At once when nobody else is alive; else after a jittered beat, so that relays that start together see each
        other.
        """
        self._settler.settle_again()
        self._settle_everything()
        peers = self._ownership.beat()
        self._ownership.verify(peers)
        if len(peers.wants_of) <= 1:
            self._next_beat = monotonic()
        else:
            self._next_beat = monotonic() + self._settings.beat_s * (0.5 + random.random() / 2)  # noqa: S311

    def turn(self) -> int:
        """One turn; how much there was to do."""
        self._dispatcher.crash_guard.write(self._session, self._epoch, self._on_loop)
        count = self._settle_plain()
        self._settles_meanwhile = False
        now = monotonic()
        if now >= self._next_beat:
            self._beat(now)
        self._ownership.finish_giving()
        self._looked_at = monotonic()
        read = 0 if self._is_ending else self._read()  # and what is being settled comes along with it
        count += read + self._settle_exceptions(FEW if read < WORTH_A_TURN else MANY)
        if count < WORTH_A_TURN or not self._settles_meanwhile:
            self._finish_settling()
        if not self._is_ending:
            self._sweeper.turn()
        if read and self._is_asleep:
            self._metrics.woken("poll")
        if count:
            self._stir()
        return count

    def wind_down(self) -> None:
        """Read and take no more; what is under way is still settled."""
        self._is_ending = True

    def end(self) -> None:
        """The orderly end."""
        self._settle_everything()
        self._ownership.give_everything()

    # --------------------------------------------------------- parts of a turn

    def _beat(self, now: float) -> None:
        """Say that I am alive; take and hand back what the others' beats make mine and theirs."""
        self._next_beat = now + self._settings.beat_s
        may_take_anything = self._ownership.may_take_anything
        peers = self._ownership.beat()
        self._metrics.beat()
        self._sweeper.beat()
        for _ in peers.ended:
            self._metrics.peer_ended()
        if not self._is_ending:
            self._go_on(peers)
            if self._ownership.is_changing:
                self._next_beat = now + self._settings.beat_s / HASTE
        crash_guard = self._dispatcher.crash_guard
        if crash_guard.is_needed and self._reader.has_read_everything and not self._sweeper.is_hurried:
            self._on_loop(crash_guard.rest)
        self._is_settled_in = may_take_anything

    def _go_on(self, peers: Peers) -> None:
        """Take and hand back; or, when this relay must not go on, end in order."""
        try:
            self._ownership.verify(peers)
        except Unusable as reason:
            self.wind_down()
            self._on_loop(self._on_dismissal, reason)
        else:
            self._ownership.balance(peers)

    def _settle_everything(self) -> None:
        while self._settle_plain() + self._settle_exceptions():
            self._finish_settling()

    def _settle_plain(self) -> int:
        """What everybody took: the server is told, and its answer comes along with a page."""
        done = self._dispatcher.done
        count = len(done)
        if count and not self._settler.has_begun:
            self._settler.begin(done)
        return count

    def _settle_exceptions(self, limit: int = MANY) -> int:
        """What the next page of everybody's messages must not wait for."""
        dispatcher = self._dispatcher
        count = len(dispatcher.ruled) + len(dispatcher.unrouted)
        if count:
            self._settler.settle(dispatcher.done, dispatcher.ruled, limit)
            self._settler.set_aside(dispatcher.unrouted)
        self._tell_peers()
        return count

    def _finish_settling(self) -> None:
        before, self._settled_count = self._settled_count, self._settler.finish()
        if self._settled_count > before:
            self._metrics.settled(self._settled_count - before, monotonic() - self._settler.began_at)

    def _tell_peers(self) -> None:
        """What was found out about destinations, which of them a lane would like to probe, and which are limited."""
        findings, probes, claims = self._dispatcher.findings, self._dispatcher.probes, self._dispatcher.claims
        while findings:
            self._session.report(findings[0])
            findings.popleft()
        while probes:
            name, asked_at = probes[0], monotonic()
            claimed, standing = self._session.claim_probe(name)
            probes.popleft()
            self._on_loop(self._dispatcher.lanes[name].answer, claimed, standing, asked_at)
        while claims:
            claim, asked_at = claims[0], monotonic()
            granted, wait_s = self._session.claim_rate(*claim)
            claims.popleft()
            self._on_loop(self._dispatcher.lanes[claim.name].answer_claim, granted, wait_s, asked_at)

    def _settle_meanwhile(self) -> None:
        """A page has arrived: have the server settle what was decided while that was read, as long as we decode it."""
        self._finish_settling()
        self._settles_meanwhile = len(self._dispatcher.done) >= WORTH_A_TURN
        if self._settles_meanwhile:
            self._settler.begin(self._dispatcher.done)

    def _read(self) -> int:
        count = self._reader.read(self._settle_meanwhile)
        if count:
            self._metrics.read(count, monotonic() - self._looked_at)
        return count

    # ----------------------------------------------------------- between turns

    def wait(self, timeout_s: float, wake_fd: int) -> None:
        """Sleep until notified, woken through `wake_fd` or timed out."""
        if self._session.wait(timeout_s, wake_fd):
            if self._is_asleep:
                self._metrics.woken("notify")
            self._stir()

    @property
    def _is_asleep(self) -> bool:
        return monotonic() >= self._busy_until

    def _stir(self) -> None:
        """Something happened: expect more of it for a while."""
        if self._is_asleep:
            self._session.awake()
        self._busy_until = monotonic() + self._settings.quiet_s

    def sleep_s(self) -> float:
        if self._sweeper.is_hurried:
            return 0.0
        now, settings = monotonic(), self._settings
        until_beat = max(self._next_beat - now, 0.0)
        if now < self._busy_until:
            return min(max(self._looked_at + settings.short_poll_s - now, 0.0), until_beat)
        return min(self._session.sleep_s(settings.slow_poll_s, settings.short_poll_s), until_beat)
