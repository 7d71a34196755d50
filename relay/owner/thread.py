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
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import structlog

from outbox.errors import OutboxError, Unusable
from outbox.tables import SHARD_COUNT
from relay.delivery.dispatcher import Dispatcher
from relay.delivery.lane import under_way
from relay.delivery.supervision import Supervisor
from relay.destinations.contract import InProcess
from relay.observe.metrics import Metrics
from relay.owner.outage import Trouble
from relay.owner.session_loop import WORTH_A_TURN, Tenure
from relay.owner.settler import Unconfirmed
from relay.platform import watchdog as stall
from relay.settings import Settings
from relay.store.contract import Session, Store

log = structlog.get_logger("relay")

SOON_S = 0.01  # verdicts may wait for a poll that comes so soon; what is not settled is sent again after a crash


class OwningThread:
    """Owns shards, reads them, settles them.

    Args:
        store: Where.
        dispatcher: Who gets the pages and gives the verdicts.
        loop: The dispatcher's event loop.
        settings: How often, how much.
        relay_id: Who I am, for people.
        generation: The generation of the registered destinations this relay was configured for.
        metrics: What is counted here.
        in_process: The destinations that run code of the user in this process.
        supervisor: What calls the dispatcher on its loop.
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
        metrics: Metrics,
        in_process: Sequence[InProcess],
        supervisor: Supervisor,
        on_dismissal: Callable[[Unusable], None],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self._store, self._dispatcher, self._loop, self._settings = store, dispatcher, loop, settings
        self._relay_id, self._generation, self._metrics = relay_id, generation, metrics
        self._in_process, self._supervisor = in_process, supervisor
        self._on_dismissal, self._on_end = on_dismissal, on_end
        self._thread = threading.Thread(target=self._run, name=f"outbox-owner-{relay_id}", daemon=True)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._waiting = self._waits_long = False
        self._stop_at: float | None = None
        self._epoch = 0
        self._round_trip_at = -1e9
        self._loop_turned_at = monotonic()
        self._loop_thread: int | None = None
        self._tenure: Tenure | None = None
        self._unconfirmed: Unconfirmed = []
        self._held_before: list[int] = []
        self.trouble = Trouble()

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
        return tenure.shards if tenure else []

    @property
    def caught_up(self) -> bool:
        """Whether everything that could be found was found and has arrived."""
        tenure = self._tenure
        return tenure is not None and tenure.caught_up

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
        self._on_loop(self._on_end, error)

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
                self._lose(error)
                self._pause(self.trouble.pause_s)
            finally:
                self._tenure = None
                if session is not None:
                    session.close()

    def _lose(self, error: Exception) -> None:
        """Nothing that was not under way is ours any more."""
        self._let_go()
        if self._tenure is not None:
            self._metrics.session_lost()
        self.trouble.add(error, owned=len(self.shards))
        self._held_before = self.shards or self._held_before

    def _let_go(self) -> None:
        self._round_trip_at = -1e9
        self._on_loop(self._dispatcher.let_go, range(SHARD_COUNT))

    def _pause(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        while not self._is_over() and (left := deadline - monotonic()) > 0:
            self._check_stall()
            threading.Event().wait(min(left, 0.1))

    def _is_over(self) -> bool:
        return self._stop_at is not None and (self._dispatcher.is_empty or monotonic() > self._stop_at)

    def _on_loop(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._loop.call_soon_threadsafe(self._supervisor.call, function, *arguments)

    # ---------------------------------------------------------------- tenure

    def _serve(self, session: Session) -> None:
        self._epoch += 1
        self._on_loop(self._dispatcher.begin, self._epoch)
        tenure = self._tenure = self._tenure_of(session)
        self.trouble.connected()
        tenure.begin()
        while not self._is_over():
            self._check_stall()
            if self._stop_at is not None:
                tenure.wind_down()
            asked_at = monotonic()
            count = tenure.turn()
            self._round_trip_at = asked_at
            self.trouble.over()
            if count < WORTH_A_TURN:
                self._wait(tenure)
        tenure.end()

    def _tenure_of(self, session: Session) -> Tenure:
        return Tenure(
            session,
            self._epoch,
            self._dispatcher,
            self._settings,
            generation=self._generation,
            held_before=self._held_before,
            unconfirmed=self._unconfirmed,
            metrics=self._metrics,
            on_loop=self._on_loop,
            on_dismissal=self._on_dismissal,
        )

    def _wait(self, tenure: Tenure) -> None:
        timeout_s = min(tenure.sleep_s(), self._settings.lease_s / 6)
        self._waits_long = timeout_s > SOON_S
        self._waiting = True
        if self._dispatcher.wants_settling or (self._waits_long and self._dispatcher.has_verdicts):
            self._waiting = False
            return
        tenure.wait(timeout_s, self._wake_read)
        self._waiting = False

    def _check_stall(self) -> None:
        """A loop that does not turn sends nothing, and must not keep others from sending."""
        for each in self._in_process:
            stall.end_if_held(each.label, each.held_s)
        if self.loop_age_s < self._settings.stall_timeout_s:
            return
        listener, at = stall.blocker(self._loop_thread, [each.listener for each in self._in_process])
        attempts = [f"{name}: {entry.id}" for name, entry in under_way(self._dispatcher.lanes.values())]
        log.critical(
            "event_loop_stalled", for_s=round(self.loop_age_s), listener=listener, at=at, under_way=attempts[:10]
        )
        os._exit(stall.EXIT_CODE)
