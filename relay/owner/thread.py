"""The owning thread holds the session, and beats, reads and settles through it.

A relay connects the **database**, which holds the messages, and the **event loop**, which sends them. This thread is
between them, so a slow destination never delays a beat, and a slow database never delays a send.

                    pages ───────────────────────────►
    owning thread                                       event loop: the dispatcher and its lanes
                    ◄─────────────────────── verdicts

`relay.seam` explains how the two reach each other. In each turn the thread settles decided entries, beats if it is
time, reads if there is room, and otherwise waits. When the session is lost, the relay drops all entries that were not
under way, and opens a new session, with backoff and without a limit. It first settles what was taken in the meantime: a
taken message is delivered, whichever relay owns the shard now.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

import structlog

from outbox.errors import OutboxError
from outbox.tables import SHARD_COUNT
from relay.databases.store.contract import Session, Store
from relay.destinations.contract import InProcess
from relay.observe.metrics import Metrics
from relay.owner.outage import Outage
from relay.owner.session_loop import WORTH_A_TURN, SessionLoop
from relay.owner.settler import Unconfirmed
from relay.platform import watchdog
from relay.seam import Bell, OwnersSeam
from relay.settings import Settings

log = structlog.get_logger("relay")


class OwningThread:
    """Owns shards, reads them, settles them.

    Args:
        store: Opens the sessions.
        seam: Reaches the event loop.
        bell: The event loop rings it to end a sleep of this thread.
        settings: The settings of the relay.
        relay_id: The name of this relay, for people.
        generation: The generation of registered destinations that this relay was configured for.
        metrics: Counts reads, settled batches, beats and lost sessions.
        in_process: The destinations that run code of the user in this process.
        clock: The time, in seconds.
    """

    def __init__(
        self,
        store: Store,
        seam: OwnersSeam,
        bell: Bell,
        settings: Settings,
        *,
        relay_id: str,
        generation: int,
        metrics: Metrics,
        in_process: Sequence[InProcess],
        clock: Callable[[], float],
    ) -> None:
        self._store, self._seam, self._bell, self._settings = store, seam, bell, settings
        self._relay_id, self._generation, self._metrics = relay_id, generation, metrics
        self._in_process, self._clock = in_process, clock
        self._thread = threading.Thread(target=self._run, name=f"outbox-owner-{relay_id}", daemon=True)
        self._stop_at: float | None = None
        self._loop_turned_at = clock()
        self._loop_thread: int | None = None
        self._session_loop: SessionLoop | None = None
        self._unconfirmed: Unconfirmed = []
        self._held_before: list[int] | None = None
        self.outage = Outage()

    # ---------------------------------------------- called by the event loop

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """Stop reading; settle attempts under way until the deadline, hand all shards back, and end."""
        self._seam.lease.end()
        self._stop_at = deadline
        self._bell.ring()

    def close(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()
        self._bell.close()

    def loop_turned(self) -> None:
        """Note that the event loop turns. Called on the loop."""
        self._loop_turned_at = self._clock()
        self._loop_thread = threading.get_ident()

    @property
    def loop_age_s(self) -> float:
        """Seconds since the event loop last turned."""
        return self._clock() - self._loop_turned_at

    @property
    def shards(self) -> list[int]:
        """The shards that this relay owns."""
        session_loop = self._session_loop
        return session_loop.shards if session_loop else []

    @property
    def caught_up(self) -> bool:
        """Whether all messages that can be found were found, and have arrived in the event loop."""
        session_loop = self._session_loop
        return session_loop is not None and session_loop.caught_up

    # --------------------------------------------------------------- the life

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._keep_sessions()
        except BaseException as caught:
            error = caught
        self._seam.events.owner_ended(error)

    def _keep_sessions(self) -> None:
        while not self._is_over():
            session: Session | None = None
            try:
                session = self._store.open(self._relay_id, self._generation)
                self._serve(session)
            except OutboxError:
                self._release_all()
                raise
            except Exception as error:
                self._lose(error)
                self._pause(self.outage.pause_s)
            finally:
                self._session_loop = None
                if session is not None:
                    session.close()

    def _lose(self, error: Exception) -> None:
        """Drop all entries that are not under way: this relay does not own them any more."""
        self._release_all()
        self.outage.add(error, owned=len(self.shards))
        if self._session_loop is not None:
            self._metrics.lost_sessions.inc()
            self._held_before = self.shards or self._held_before or []

    def _release_all(self) -> None:
        self._seam.lease.lose()
        self._seam.tell.release(range(SHARD_COUNT))

    def _pause(self, seconds: float) -> None:
        deadline = self._clock() + seconds
        while not self._is_over() and (left := deadline - self._clock()) > 0:
            self._check_stall()
            threading.Event().wait(min(left, 0.1))

    def _is_over(self) -> bool:
        return self._stop_at is not None and (self._seam.view.is_empty or self._clock() > self._stop_at)

    # ------------------------------------------------------------ one session

    def _serve(self, session: Session) -> None:
        epoch = self._seam.lease.begin_session()
        self._seam.tell.begin_session(epoch)
        session_loop = self._session_loop = SessionLoop(
            session,
            epoch,
            self._seam,
            self._settings,
            generation=self._generation,
            held_before=self._held_before,
            unconfirmed=self._unconfirmed,
            metrics=self._metrics,
            clock=self._clock,
        )
        self.outage.connected()
        session_loop.begin()
        while not self._is_over():
            self._check_stall()
            if self._stop_at is not None:
                session_loop.wind_down()
            asked_at = self._clock()
            count = session_loop.turn()
            self._seam.lease.renew(asked_at)
            if session_loop.has_worked:
                self.outage.end()
            if count < WORTH_A_TURN:
                self._wait(session_loop)
        session_loop.end()

    def _wait(self, session_loop: SessionLoop) -> None:
        timeout_s = min(session_loop.sleep_s(), self._settings.lease_s / 6)
        if self._seam.heard.fall_asleep(timeout_s):
            session_loop.wait(timeout_s, self._bell.fileno())
            self._seam.heard.wake_up()

    def _check_stall(self) -> None:
        """End the process if its event loop is blocked: it sends nothing and must not keep its peers from sending."""
        for each in self._in_process:
            watchdog.end_if_held(each.label, each.held_s)
        if self.loop_age_s < self._settings.stall_timeout_s:
            return
        listener, at = watchdog.blocker(self._loop_thread, [each.listener for each in self._in_process])
        attempts = [f"{name}: {message_id}" for name, message_id in self._seam.view.under_way()]
        log.critical(
            "event_loop_stalled", for_s=round(self.loop_age_s), listener=listener, at=at, under_way=attempts[:10]
        )
        os._exit(watchdog.EXIT_CODE)
