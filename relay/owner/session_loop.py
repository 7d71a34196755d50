"""The session loop: the turns of the owning thread in one session.

Each turn: write crash notes, settle the entries that every destination took, beat if it is time, read if there is room,
and only then settle exceptions, because their cost must not delay healthy destinations. A turn ends with a part of the
sweep (see `relay.owner.sweeper`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection

from outbox.errors import Unusable
from relay.databases.store.contract import Session
from relay.databases.store.records import Peers
from relay.databases.store.rows import Cursors
from relay.observe.metrics import Metrics
from relay.owner.reader import Reader
from relay.owner.reports import Reports
from relay.owner.settler import Settler, Unconfirmed
from relay.owner.shards import Shards
from relay.owner.sweeper import Sweeper
from relay.owner.unreadable import Unreadable
from relay.owner.withdrawals import Withdrawals
from relay.seam import OwnersSeam
from relay.seam.to_owner import SOON_S
from relay.settings import Settings

WORTH_A_TURN = 100  # rows read or settled in a turn: if there were fewer, wait for the next short poll
FEW, MANY = 25, 200  # exceptions settled between two reads: while new messages arrive, and during a drain
HASTE = 4  # beats in the time of one beat, while shards are handed over


def pause_s(poll_s: float, *, since_look_s: float, turn_s: float) -> float:
    """Return how long a relay with little to do pauses: until the next poll, and at least as long as its last turn.

    On a busy machine a turn may take longer than the time between two polls. Without a pause the relay would then look
    for a few messages all the time, and take processor time from the workers that write them. With a pause it looks
    less often and finds more each time.

    Args:
        poll_s: The time between two looks.
        since_look_s: The time since the last look.
        turn_s: How long the last turn took. At most `SOON_S` of it counts, because verdicts wait to be settled.
    """
    return max(poll_s - since_look_s, min(turn_s, SOON_S))


class SessionLoop:
    """Runs one session until it ends or is lost.

    Args:
        session: The session.
        epoch: Its number.
        seam: Reaches the event loop.
        settings: The settings of the relay.
        generation: The generation of registered destinations that this relay was configured for.
        held_before: The shards that this relay held in its last session; ``None``: it had no session before.
        unconfirmed: Entries whose verdicts may not be on disk yet; the next session gets the same object.
        metrics: Counts verdicts, reads, settled batches and beats.
        clock: The time, in seconds.
    """

    def __init__(
        self,
        session: Session,
        epoch: int,
        seam: OwnersSeam,
        settings: Settings,
        *,
        generation: int,
        held_before: Collection[int] | None,
        unconfirmed: Unconfirmed,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._waking, self._seam, self._heard = session.waking, seam, seam.heard
        self._settings, self._metrics, self._clock = settings, metrics, clock
        cursors = Cursors()
        subscriptions = {name: each.events for name, each in settings.destinations.items()}
        unreadable = Unreadable(session.reading.unreadable, session.settling, subscriptions, count=metrics.count)
        page_size = min(settings.page_size, max(settings.window // 4, 1))  # reading, sending and settling overlap
        self._reader = Reader(
            session.reading, epoch, seam, cursors, unreadable=unreadable, page_size=page_size, clock=clock
        )
        self._shards = Shards(
            session.ownership, self._reader, cursors, seam, generation=generation, held_before=held_before, clock=clock
        )
        self._settler = Settler(session.settling, epoch, self._reader, seam, unconfirmed=unconfirmed, clock=clock)
        self._reports = Reports(session.ownership, epoch, seam, clock)
        self._withdrawals = Withdrawals(epoch, seam, clock)
        self._sweeper = Sweeper(
            session.settling, cursors, self._reader, self._withdrawals, count=metrics.count, clock=clock
        )
        self._next_beat = 0.0
        self._busy_until = self._looked_at = self._turn_s = 0.0
        self._is_ending = False
        self._is_settled_in = False
        self._has_beaten = False
        self._settled_count = 0
        self._settles_meanwhile = False

    @property
    def shards(self) -> list[int]:
        """The shards that this session holds."""
        return self._shards.owned

    @property
    def has_worked(self) -> bool:
        """Whether a whole turn has worked in which it could take shards. Until then it reads no rows that may fail."""
        return self._has_beaten

    @property
    def caught_up(self) -> bool:
        """Whether all messages that can be found were found, and have arrived in the event loop."""
        is_clean = not self._sweeper.is_hurried and not self._withdrawals.are_pending
        return self._is_settled_in and self._reader.caught_up and is_clean

    def begin(self) -> None:
        """Settle what was taken before this session, register, and take shards.

        If no other relay is alive, take them at once; else after a jittered beat, so that relays that start together
        see each other.
        """
        self._settler.settle_again()
        self._settle_everything()
        peers = self._shards.beat()
        self._shards.verify(peers)
        if len(peers.wants_of) <= 1:
            self._next_beat = self._clock()
        else:
            self._next_beat = self._clock() + self._settings.beat_s * (0.5 + random.random() / 2)  # noqa: S311

    def turn(self) -> int:
        """Do one turn; return the number of rows that were read or settled."""
        began_at = self._clock()
        self._reports.write_notes()
        count = self._settle_plain()
        self._settles_meanwhile = False
        now = self._clock()
        if now >= self._next_beat:
            self._beat(now)
        self._shards.finish_giving()
        self._looked_at = self._clock()
        read = 0 if self._is_ending else self._read()  # the answer also contains the result of the settling
        count += read + self._settle_exceptions(FEW if read < WORTH_A_TURN else MANY)
        if count < WORTH_A_TURN or not self._settles_meanwhile:
            self._finish_settling()
        if not self._is_ending:
            self._sweeper.turn()
        self._shards.report()
        if read and self._is_asleep:
            self._metrics.wake_ups.labels("poll").inc()
        if count:
            self._stir()
        self._turn_s = self._clock() - began_at
        return count

    def wind_down(self) -> None:
        """Stop reading and taking shards; attempts under way are still settled."""
        self._is_ending = True

    def end(self) -> None:
        """End in order: settle all entries, and hand all shards back."""
        self._settle_everything()
        self._shards.give_everything()

    # --------------------------------------------------------- parts of a turn

    def _beat(self, now: float) -> None:
        """Beat; then take and hand back shards as the beats of the other relays require."""
        self._next_beat = now + self._settings.beat_s
        self._has_beaten = True
        may_take_anything = self._shards.may_take_anything
        peers = self._shards.beat()
        self._metrics.beat()
        self._sweeper.beat()
        self._metrics.ended_peers.inc(len(peers.ended))
        if not self._is_ending:
            self._go_on(peers)
            if self._shards.is_changing:
                self._next_beat = now + self._settings.beat_s / HASTE
        is_all_read = self._reader.has_read_everything and not self._sweeper.is_hurried
        if self._seam.view.is_watching_for_crashes and is_all_read:
            self._seam.crashes.rest()
        self._is_settled_in = may_take_anything

    def _go_on(self, peers: Peers) -> None:
        """Take and hand back shards; if this relay must not continue, end in order."""
        try:
            self._shards.verify(peers)
        except Unusable as reason:
            self.wind_down()
            self._seam.events.dismissed(reason)
        else:
            self._shards.balance(peers)

    def _settle_everything(self) -> None:
        while self._settle_plain() + self._settle_exceptions():
            self._finish_settling()

    def _settle_plain(self) -> int:
        """Send the server the entries that every destination took; the answer arrives with the next page."""
        done = self._heard.done
        count = len(done)
        if count and not self._settler.has_begun:
            self._settler.begin(done)
        return count

    def _settle_exceptions(self, limit: int = MANY) -> int:
        """Settle exceptions; the next page of plain messages does not wait for them."""
        heard = self._heard
        count = len(heard.ruled) + len(heard.unrouted)
        if count:
            self._settler.settle(heard.done, heard.ruled, limit)
            self._settler.set_aside(heard.unrouted)
        self._reports.answer_requests()
        return count

    def _finish_settling(self) -> None:
        before, self._settled_count = self._settled_count, self._settler.finish()
        if self._settled_count > before:
            self._metrics.settled(self._settled_count - before, self._clock() - self._settler.began_at)

    def _settle_meanwhile(self) -> None:
        """Have the server settle decided entries while this thread decodes a page and requests the next one."""
        self._finish_settling()
        self._settles_meanwhile = len(self._heard.done) >= WORTH_A_TURN
        if self._settles_meanwhile:
            self._settler.begin(self._heard.done)

    def _read(self) -> int:
        count = self._reader.read(self._settle_meanwhile)
        if count:
            self._metrics.read(count, self._clock() - self._looked_at)
        return count

    # ----------------------------------------------------------- between turns

    def wait(self, timeout_s: float, wake_fd: int) -> None:
        """Sleep until notified, woken through `wake_fd` or timed out."""
        if self._waking.wait(timeout_s, wake_fd):
            if self._is_asleep:
                self._metrics.wake_ups.labels("notify").inc()
            self._stir()

    @property
    def _is_asleep(self) -> bool:
        return self._clock() >= self._busy_until

    def _stir(self) -> None:
        """Note activity: stay awake for a while."""
        if self._is_asleep:
            self._waking.awake()
        self._busy_until = self._clock() + self._settings.quiet_s

    def sleep_s(self) -> float:
        """Return how long to sleep if there is nothing to do."""
        if self._sweeper.is_hurried:
            return 0.0
        now, settings = self._clock(), self._settings
        until_beat = max(self._next_beat - now, 0.0)
        if now < self._busy_until:
            poll_s = max(settings.short_poll_s, SOON_S) if self._reader.is_stocked else settings.short_poll_s
            return min(pause_s(poll_s, since_look_s=now - self._looked_at, turn_s=self._turn_s), until_beat)
        return min(self._waking.sleep_s(settings.slow_poll_s, settings.short_poll_s), until_beat)
