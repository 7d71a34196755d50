"""One destination's state, as this relay sees it and as all of them do; and what that means for what waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import structlog

from relay.decide.outcome import TAKEN, Outcome
from relay.decide.standing import Finding, Standing
from relay.decide.verdict import DELIVERED, Verdict
from relay.entry import Entry
from relay.waiting import Waiting

log = structlog.get_logger("relay")

DOWN = ("paused", "throttled", "off")


class Judging(Waiting):
    """Rules on outcomes (`relay.decide.blame`), and shares what it finds out (`relay.decide.standing`).

    Args:
        on_finding: Called when it turns out that the destination is down, or is not.
        on_probe: Called with the name when it is time to probe it; `answer` says whether this relay may.
    """

    def __init__(
        self, *arguments: Any, on_finding: Callable[[Finding], None], on_probe: Callable[[str], None], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._resumed_at: str | None = None
        self._is_alone = True  # no other relay has a say
        self._is_said = False  # that it is down
        self._joined = False  # the pause that holds here is one that all relays know of
        self._may_probe = self._claimed = self._asked = False  # a probe, and for all relays
        self._taken_at = -1e9  # when the latest attempt that was taken began
        self._on_finding = on_finding
        self._on_probe = on_probe

    def wake(self) -> None:
        """Let whoever sends see what has changed."""
        raise NotImplementedError

    # --------------------------------------------------- what all relays know

    def heed(self, standing: Standing, asked_at: float, *, alone: bool) -> None:
        """What all relays, and operators, say of this destination, as of `asked_at`."""
        self._is_alone = alone
        self._pause(standing.reason if standing.paused_by == "operator" else None)
        self._note_resumed(standing.resumed_at)
        if asked_at < self.blame.since:
            return  # what has happened here since is newer
        if not standing.is_down:
            if self._joined:
                self._resume(tell=False)
        elif standing.state != "paused":
            self._join(standing, asked_at)
        elif standing.is_disputed_by(asked_at - self._taken_at):
            self._on_finding(Finding(self.name, "healthy", disputes=True))
        elif not alone and not (self.blame.condition == "healthy" and standing.is_fresh):
            self._join(standing, asked_at)

    def _join(self, standing: Standing, asked_at: float) -> None:
        """It is down, as all relays know; where this one knew already, only the waits are theirs."""
        self._joined = True
        blame = self.blame
        if blame.condition == standing.state and not blame.is_open:
            if not blame.probing and not self._may_probe and standing.wait_s is not None:
                blame.pauses, blame.until = max(blame.pauses, standing.pauses), asked_at + standing.wait_s
            return
        before = blame.condition
        self._carry_out(blame.adopt(standing, asked_at))
        if before not in DOWN or blame.condition != before:
            self._say_down()
            if self.has_siblings:
                self.park_waiting()

    def answer(self, claimed: bool, standing: Standing, asked_at: float) -> None:
        """Whether this relay probes for all of them, or how long to wait for the one that does."""
        self._asked = False
        if self.blame.condition == "paused":
            self._claimed = claimed
            self._may_probe = claimed or not standing.is_down
            if not self._may_probe:
                self._join(standing, asked_at)
        self.wake()

    def _pause(self, reason: str | None) -> None:
        """By an operator; ``None`` resumes."""
        if reason != self.operator_pause:
            self.operator_pause = reason
            log.warning("destination_paused_by_operator", destination=self.name, reason=reason) if reason else log.info(
                "destination_resumed", destination=self.name
            )
            self.wake()

    def _note_resumed(self, at: str | None) -> None:
        """When an operator resumed it the last time; if that is news, forget what it was down for."""
        known, self._resumed_at = self._resumed_at, at
        if known != at and self.blame.condition != "healthy":
            self._resume()

    def _resume(self, *, tell: bool = True) -> None:
        now, before = monotonic(), self.blame.condition
        self._carry_out(self.blame.resume(now))
        self._turned(before, now, tell=tell)
        self.wake()

    def _may_probe_or_asks(self) -> bool:
        """A destination that is down is probed by one relay for all of them: whether this may, or it asks whether."""
        if self.blame.condition != "paused" or self.blame.is_open or self._is_alone or self._may_probe:
            return True
        if not self._asked:
            self._asked = True
            self._on_probe(self.name)
        return False

    # ---------------------------------------------------------------- verdicts

    def _rule(self, entry: Entry, outcome: Outcome, started_at: float) -> None:
        if outcome is TAKEN:
            self._taken_at = started_at
            if self.blame.condition == "healthy":
                self._decide(entry, DELIVERED)
                return
        now = monotonic()
        before = self.blame.condition, self.blame.until
        self._carry_out(self.blame.judge(entry, outcome, started_at, now))
        if not self._queue and not self._under_way:
            self._carry_out(self.blame.exhausted(now))
        if (self.blame.condition, self.blame.until) != before:
            self._turned(before[0], now)
        self.wake()

    def _carry_out(self, ruling: Iterable[tuple[Entry, Verdict | None]]) -> None:
        absolved = []
        for entry, verdict in ruling:
            if verdict is None:
                absolved.append(entry)
            else:
                self._decide(entry, verdict)
        for entry in sorted(absolved, key=lambda e: e.position, reverse=True):
            self._queue.appendleft(entry)

    def _turned(self, before: str, now: float, *, tell: bool = True) -> None:
        """Say what became of the destination; when it is down, keep only what it takes to probe it."""
        blame = self.blame
        is_probe = self._claimed or self._is_alone
        self._claimed = self._may_probe = self._joined = False
        if blame.condition in DOWN:
            # Of a slow stream some fail and are taken when they are retried: one failure is no outage yet.
            is_news = before not in DOWN or not self._is_said
            if is_news and not (blame.is_open and blame.pauses < 2):
                self._say_down()
            self._on_finding(self._finding(now, is_probe=is_probe))
            if self.has_siblings:
                self.park_waiting()
        elif before in DOWN:
            if self._is_said:
                self._is_said = False
                log.info("destination_resumed", destination=self.name)
            if tell:
                self._on_finding(Finding(self.name, "healthy", is_probe=is_probe))

    def _say_down(self) -> None:
        self._is_said = True
        log.warning(f"destination_{self.blame.condition}", destination=self.name, reason=self.blame.reason)

    def _finding(self, now: float, *, is_probe: bool) -> Finding:
        blame = self.blame
        if blame.is_open:
            return Finding(self.name, "paused", f"{blame.reason} (new messages are tried at once)")
        wait_s = None if blame.condition == "off" else max(blame.until - now, 0.0)
        return Finding(self.name, blame.condition, blame.reason, wait_s, blame.pauses, is_probe=is_probe)
