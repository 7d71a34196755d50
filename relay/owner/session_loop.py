"""The session loop: the turns of the owning thread in one session.

Each turn: write crash notes, settle the entries that every destination took, beat if it is time, read if there is room,
and only then settle exceptions, because their cost must not delay healthy destinations. A turn ends with a part of the
sweep (see `relay.owner.sweeper`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from outbox.errors import Unusable
from relay.observe.metrics import Metrics
from relay.owner.assembly import Parts
from relay.seam import OwnersSeam
from relay.seam.to_owner import SOON_S
from relay.settings import Settings
from relay.store.contract import Peers

WORTH_A_TURN = 100  # rows read or settled: after fewer, wait for the next short poll
FEW, MANY = 25, 200  # exceptions settled between two looks: in a stream, in a drain
HASTE = 4  # beats in the time of one, while shards are handed over


def pause_s(poll_s: float, *, since_look_s: float, turn_s: float) -> float:
    """Return how long a busy relay with little to do pauses: until the next poll, and as long as its last turn took.

    On a busy machine a turn may take longer than the time between two polls. Without a pause the relay would then look
    for a few messages all the time, and take the processor from those who write them. It looks later, for more.

    Args:
        poll_s: The time from one look to the next.
        since_look_s: The time since the last look.
        turn_s: How long the last turn took; at most `SOON_S` counts, because verdicts wait to be settled.
    """
    return max(poll_s - since_look_s, min(turn_s, SOON_S))


class SessionLoop:
    """Runs one session until it ends or is lost.

    Args:
        parts: The parts that it runs.
        seam: Reaches the event loop.
        settings: The settings of the relay.
        metrics: Counts reads, settled batches and beats.
        clock: The time, in seconds.
    """

    def __init__(
        self, parts: Parts, seam: OwnersSeam, settings: Settings, *, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._session, self._ownership, self._reader = parts.session, parts.ownership, parts.reader
        self._settler, self._reports, self._sweeper = parts.settler, parts.reports, parts.sweeper
        self._withdrawals = parts.withdrawals
        self._tell, self._events, self._heard, self._view = seam.tell, seam.events, seam.heard, seam.view
        self._settings, self._metrics, self._clock = settings, metrics, clock
        self._next_beat = 0.0
        self._busy_until = self._looked_at = self._turn_s = 0.0
        self._is_ending = False
        self._is_settled_in = False
        self._settled_count = 0
        self._settles_meanwhile = False

    @property
    def shards(self) -> list[int]:
        """The shards that this session holds."""
        return self._ownership.shards

    @property
    def caught_up(self) -> bool:
        """Whether all messages that can be found were found, and have arrived in the event loop."""
        is_clean = not self._sweeper.is_hurried and not self._withdrawals.are_pending
        return self._is_settled_in and self._reader.caught_up and is_clean

    def begin(self) -> None:
        """Settle what was taken before this session, register, and take shards.

        It takes them at once if no other relay is alive, else after a jittered beat, so relays that start together see
        each other.
        """
        self._settler.settle_again()
        self._settle_everything()
        peers = self._ownership.beat()
        self._ownership.verify(peers)
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
        self._ownership.finish_giving()
        self._looked_at = self._clock()
        read = 0 if self._is_ending else self._read()  # its answer also has the result of the settling
        count += read + self._settle_exceptions(FEW if read < WORTH_A_TURN else MANY)
        if count < WORTH_A_TURN or not self._settles_meanwhile:
            self._finish_settling()
        if not self._is_ending:
            self._sweeper.turn()
        if read and self._is_asleep:
            self._metrics.woken("poll")
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
        self._ownership.give_everything()

    # --------------------------------------------------------- parts of a turn

    def _beat(self, now: float) -> None:
        """Beat; then take and hand back shards as the beats of the others require."""
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
        is_all_read = self._reader.has_read_everything and not self._sweeper.is_hurried
        if self._view.is_watching_for_crashes and is_all_read:
            self._tell.everything_is_read()
        self._is_settled_in = may_take_anything

    def _go_on(self, peers: Peers) -> None:
        """Take and hand back shards; or end in order if this relay must not continue."""
        try:
            self._ownership.verify(peers)
        except Unusable as reason:
            self.wind_down()
            self._events.dismissed(reason)
        else:
            self._ownership.balance(peers)

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
        """Settle exceptions: the next page of plain messages does not wait for them."""
        heard = self._heard
        count = len(heard.ruled) + len(heard.unrouted)
        if count:
            self._settler.settle(heard.done, heard.ruled, limit)
            self._settler.set_aside(heard.unrouted)
        self._reports.write_findings()
        return count

    def _finish_settling(self) -> None:
        before, self._settled_count = self._settled_count, self._settler.finish()
        if self._settled_count > before:
            self._metrics.settled(self._settled_count - before, self._clock() - self._settler.began_at)

    def _settle_meanwhile(self) -> None:
        """While a page is decoded, have the server settle what was decided while it was read."""
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
        if self._session.wait(timeout_s, wake_fd):
            if self._is_asleep:
                self._metrics.woken("notify")
            self._stir()

    @property
    def _is_asleep(self) -> bool:
        return self._clock() >= self._busy_until

    def _stir(self) -> None:
        """Note activity: stay awake for a while."""
        if self._is_asleep:
            self._session.awake()
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
        return min(self._session.sleep_s(settings.slow_poll_s, settings.short_poll_s), until_beat)
