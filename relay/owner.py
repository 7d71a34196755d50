"""The owning thread: it holds the session, and through it beats, reads and settles.

Three parties meet in a relay. The **database** says what is to be done; the **event loop** does it; this thread stands
between them, so that a slow destination never delays a beat and a slow database never delays a send.

                    pages ───────────────────────────►
    owning thread                                       event loop: Dispatcher and its Lanes
                    ◄─────────────────────── verdicts

Each turn: settle what has been decided, beat if it is time, read if there is room, else wait. When the session is
lost, what was not under way is let go, and a new session is opened with backoff, for as long as it takes. What had
been taken in the meantime is settled first, for that is true whoever owns the shard now.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import structlog

from outbox.errors import OutboxError, Unusable
from outbox.tables import SHARD_COUNT
from relay import stall
from relay.database import is_refusal
from relay.decide.backoff import Policy, jittered
from relay.destinations.listener import ListenerDestination
from relay.dispatch import Dispatcher
from relay.observe.metrics import Metrics
from relay.ownership import Ownership
from relay.reading import Reader
from relay.settings import Settings
from relay.settling import Settler, Unconfirmed
from relay.store.contract import Cursors, Full, Lost, Peers, Session, Standby, Store

log = structlog.get_logger("relay")

WORTH_A_TURN = 100  # rows read or settled: after fewer, more may gather until the next short poll
HASTE = 4  # so many beats in the time of one, while shards change hands
# Tried again sooner than AFTER_RESTART_S (relay.ownership): whoever comes later finds its shards taken.
RECONNECT = Policy(backoff_s=0.2, backoff_max_s=1.5)


class OwningThread:
    """Owns shards, reads them, settles them.

    Args:
        store: Where.
        dispatcher: Who gets the pages and gives the verdicts.
        loop: The dispatcher's event loop.
        settings: How often, how much.
        relay_id: Who I am, for people.
        generation: The generation of the registered destinations this relay was configured for.
        skipping: The destinations whose dead letters do not hold their successors up.
        metrics: What is counted here.
        on_dismissal: Called on the loop when this relay must not go on, with the reason: whoever hears it calls `stop`.
        on_end: Called on the loop when the thread has ended, with the error that ended it, if any.
    """

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        *,
        relay_id: str,
        generation: int,
        skipping: Sequence[str],
        metrics: Metrics,
        on_dismissal: Callable[[Unusable], None],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self._store, self._dispatcher, self._loop, self._settings = store, dispatcher, loop, settings
        self._relay_id, self._generation, self._skipping = relay_id, generation, skipping
        self._on_dismissal, self._on_end = on_dismissal, on_end
        self.metrics = metrics
        self._thread = threading.Thread(target=self._run, name=f"outbox-owner-{relay_id}", daemon=True)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._waiting = self._waits_long = False
        self._stop_at: float | None = None
        self._is_dismissed = False
        self._epoch = 0
        self._round_trip_at = -1e9
        self._loop_turned_at = monotonic()
        self._loop_thread: int | None = None
        self._tenure: Tenure | None = None
        self._unconfirmed: Unconfirmed = []
        self._held_before: list[int] = []
        self.trouble: str | None = "not connected yet"
        self.is_standing_by = False
        self._said: set[str] = set()  # of the trouble, so that it is said once
        self._failures = 0  # in a row, of sessions that came to nothing

    # ------------------------------------------- what the event loop may call

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something to settle; cheap enough to call for every message.

        Few verdicts can wait for the next short poll: a round trip for each of them would cost more than the sending.
        """
        if self._waiting and (self._waits_long or self._dispatcher.wants_settling):
            self._waiting = False
            self._ring()

    def stop(self, deadline: float) -> None:
        """Read no more; settle what is under way until the deadline, hand everything back, end."""
        self._stop_at = deadline
        self._ring()

    def close(self) -> None:
        """After the thread has ended."""
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def may_send(self, now: float) -> bool:
        """Whether this relay can still know that it owns what it holds.

        A lease runs from the moment the server was asked: when its answer is read, the process may have slept for long.
        """
        known = now - self._round_trip_at < self._settings.lease_s / 3 and self._dispatcher.epoch == self._epoch
        return known and self._stop_at is None

    def loop_turned(self) -> None:
        self._loop_turned_at = monotonic()
        self._loop_thread = threading.get_ident()

    @property
    def loop_age_s(self) -> float:
        return monotonic() - self._loop_turned_at

    @property
    def shards(self) -> list[int]:
        tenure = self._tenure
        return tenure.ownership.shards if tenure else []

    @property
    def caught_up(self) -> bool:
        """Whether everything that could be found was found and has arrived."""
        tenure = self._tenure
        return tenure is not None and tenure.is_settled_in and tenure.reader.caught_up

    def _ring(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            return  # the pipe is full of wake-ups already

    # --------------------------------------------------------------- the life

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._keep_sessions()
        except BaseException as caught:
            error = caught
        self._loop.call_soon_threadsafe(self._on_end, error)

    def _keep_sessions(self) -> None:
        while not self._is_over():
            session: Session | None = None
            try:
                session = self._store.open(self._relay_id, self._generation)
                self._serve(session)
            except OutboxError:
                self._let_go()
                raise
            except Exception as error:
                self._failures += 1
                self._lose(error)
                self._pause(jittered(RECONNECT.ceiling_s(self._failures), 0.5 + random.random() / 2))  # noqa: S311
            finally:
                self._tenure = None
                if session is not None:
                    session.close()

    def _lose(self, error: Exception) -> None:
        """Say once what happened; nothing that was not under way is ours any more."""
        owned = len(self.shards)
        self._held_before = self.shards or self._held_before
        self._let_go()
        if self._tenure is not None:
            self.metrics.session_lost()
        self.trouble = str(error) or type(error).__name__
        self.is_standing_by = isinstance(error, Standby)
        what = self.trouble if not isinstance(error, Lost) or is_refusal(error) else type(error).__name__
        if what in self._said:
            return
        self._said.add(what)
        if self.is_standing_by:
            log.warning("waiting", reason=self.trouble)
        elif isinstance(error, Full):
            log.error("database_full", reason=self.trouble, owned=owned)
        elif isinstance(error, Lost):
            log.warning("database_lost", reason=self.trouble, owned=owned)
        else:
            log.error("session_broke", exc_info=error)

    def _let_go(self) -> None:
        self._round_trip_at = -1e9
        self._on_loop(self._dispatcher.let_go, range(SHARD_COUNT))

    def _pause(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        while not self._is_over() and (left := deadline - monotonic()) > 0:
            self._check_stall()
            threading.Event().wait(min(left, 0.1))

    def _dismiss(self, reason: Unusable) -> None:
        """Read no more, and end in order: what is under way may finish, and is settled."""
        self._is_dismissed = True
        self._on_loop(self._on_dismissal, reason)

    def _is_over(self) -> bool:
        return self._stop_at is not None and (self._dispatcher.is_empty or monotonic() > self._stop_at)

    def _on_loop(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)

    # ---------------------------------------------------------------- tenure

    def _serve(self, session: Session) -> None:
        self._epoch += 1
        self._on_loop(self._dispatcher.begin, self._epoch)
        tenure = Tenure(self, session, self._epoch)
        self._tenure = tenure
        if not self._said:
            self.trouble = None
        tenure.begin()
        while not self._is_over():
            self._check_stall()
            asked_at = monotonic()
            count = tenure.turn(reading=self._stop_at is None and not self._is_dismissed)
            self._round_trip_at = asked_at
            self._be_well()
            if count < WORTH_A_TURN:
                self._wait(tenure)
        tenure.end()

    def _be_well(self) -> None:
        """A whole turn has worked, writing included: whatever the trouble was, it is over."""
        if self._said:
            log.info("database_back")
            self._said.clear()
        self.trouble = None
        self.is_standing_by = False
        self._failures = 0

    def _wait(self, tenure: Tenure) -> None:
        timeout_s = min(tenure.sleep_s(), self._settings.lease_s / 6)
        self._waits_long = timeout_s > self._settings.short_poll_s
        self._waiting = True
        if self._dispatcher.wants_settling or (self._waits_long and self._dispatcher.has_verdicts):
            self._waiting = False
            return
        if tenure.session.wait(timeout_s, self._wake_read):
            self.metrics.woken("notify")
            tenure.stir()
        self._waiting = False

    def _check_stall(self) -> None:
        """A loop that does not turn sends nothing, and must not keep others from sending."""
        if self.loop_age_s < self._settings.stall_timeout_s:
            return
        lanes = self._dispatcher.lanes.values()
        listeners = [lane.destination.listener for lane in lanes if isinstance(lane.destination, ListenerDestination)]
        listener, at = stall.blocker(self._loop_thread, listeners)
        under_way = [f"{lane.name}: {entry.id}" for lane in lanes for entry in lane.under_way]
        log.critical(
            "event_loop_stalled", for_s=round(self.loop_age_s), listener=listener, at=at, under_way=under_way[:10]
        )
        os._exit(stall.EXIT_CODE)


class Tenure:
    """One session's time in office: what it owns, reads and settles."""

    def __init__(self, thread: OwningThread, session: Session, epoch: int) -> None:
        settings, dispatcher = thread._settings, thread._dispatcher
        self.session = session
        self._thread = thread
        self._settings, self._dispatcher, self._metrics = settings, dispatcher, thread.metrics
        self._epoch, self._on_loop = epoch, thread._on_loop
        cursors = Cursors()
        self.reader = Reader(
            session,
            dispatcher,
            cursors,
            skipping=thread._skipping,
            page_size=settings.page_size,
            post=lambda page: thread._on_loop(dispatcher.accept, page, epoch),
        )
        self.ownership = Ownership(
            session,
            self.reader,
            cursors,
            dispatcher,
            generation=thread._generation,
            skipping=thread._skipping,
            held_before=thread._held_before,
            on_loop=thread._on_loop,
        )
        self._settler = Settler(
            session,
            epoch,
            skipping=thread._skipping,
            unconfirmed=thread._unconfirmed,
            note=self.reader.note_exceptions,
            forget=lambda entries: thread._on_loop(dispatcher.forget, entries),
            reread=self.reader.reread,
        )
        self._dismiss = thread._dismiss
        self._next_beat = 0.0
        self._busy_until = 0.0
        self.is_settled_in = False

    def begin(self) -> None:
        """Settle what was taken before this session, register, and take a share at once, or with the next beat.

        At once when nobody else is alive; else after a jittered beat, so that relays that start together see each
        other.
        """
        self._settler.settle_again()
        self._settle()
        peers = self.ownership.beat()
        self.ownership.verify(peers)
        if len(peers.wants_of) <= 1:
            self._next_beat = monotonic()
        else:
            self._next_beat = monotonic() + self._settings.beat_s * (0.5 + random.random() / 2)  # noqa: S311

    def turn(self, *, reading: bool) -> int:
        """One turn; how much there was to do."""
        dispatcher = self._dispatcher
        dispatcher.caution.write(self.session, self._epoch, self._on_loop)
        count = self._settle()
        now = monotonic()
        if now >= self._next_beat:
            self._next_beat = now + self._settings.beat_s
            may_take_anything = self.ownership.may_take_anything
            peers = self.ownership.beat()
            self._metrics.beat()
            for _ in peers.ended:
                self._metrics.peer_ended()
            if reading:
                reading = self._go_on(peers)
                if self.ownership.is_changing:
                    self._next_beat = now + self._settings.beat_s / HASTE
            if dispatcher.caution.is_needed and self.reader.has_read_everything:
                self._on_loop(dispatcher.caution.rest)
            self.is_settled_in = may_take_anything
        self.ownership.finish_giving()
        if reading:
            count += self._read()
        if count:
            self.stir()
        return count

    def _go_on(self, peers: Peers) -> bool:
        """Take and hand back; false when this relay has to end instead."""
        try:
            self.ownership.verify(peers)
        except Unusable as reason:
            self._dismiss(reason)
            return False
        self.ownership.balance(peers)
        return True

    def _read(self) -> int:
        started = monotonic()
        count = self.reader.read()
        if count:
            self._metrics.read(count, monotonic() - started)
        return count

    def stir(self) -> None:
        """Something happened: expect more of it for a while."""
        if monotonic() >= self._busy_until:
            self.session.awake()
        self._busy_until = monotonic() + self._settings.quiet_s

    def sleep_s(self) -> float:
        now, settings = monotonic(), self._settings
        until_beat = max(self._next_beat - now, 0.0)
        if now < self._busy_until:
            return min(settings.short_poll_s, until_beat)
        return min(self.session.sleep_s(settings.slow_poll_s, settings.short_poll_s), until_beat)

    def end(self) -> None:
        """The orderly end."""
        self._settle()
        self.ownership.give_everything()

    def _settle(self) -> int:
        dispatcher = self._dispatcher
        count = len(dispatcher.done) + len(dispatcher.ruled) + len(dispatcher.unrouted)
        if count:
            started, before = monotonic(), self._settler.settled_count
            self._settler.settle(dispatcher.done, dispatcher.ruled)
            self._settler.set_aside(dispatcher.unrouted)
            self._metrics.settled(self._settler.settled_count - before, monotonic() - started)
        while dispatcher.findings:
            self.session.report(dispatcher.findings[0])
            dispatcher.findings.popleft()
        while dispatcher.probes:
            name, asked_at = dispatcher.probes[0], monotonic()
            claimed, standing = self.session.claim_probe(name)
            dispatcher.probes.popleft()
            self._thread._on_loop(dispatcher.lanes[name].answer, claimed, standing, asked_at)
        return count
