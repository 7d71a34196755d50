"""The health of one destination, shared with the other relays.

Each relay judges by its own attempts (`relay.decide.breaker`), reports its findings, and follows those of its peers
(`relay.decide.shared_state`). This object only decides. It returns the suspects that the breaker releases as a ruling,
and the lane carries the ruling out.
"""

from __future__ import annotations

import structlog

from relay.decide.breaker import CircuitBreaker
from relay.decide.failures.suspects import Ruling
from relay.decide.shared_state import Finding, SharedState
from relay.seam import Entry, Probe, ToOwner

log = structlog.get_logger("relay")

NOTED_S = 60.0  # how long a note about failures is shown after the last failure
FAILING_S = 5.0  # shorter failures are not logged: most end with the first retry, or when a server has restarted
PAUSES_LOGGED_EVERY_S = 60.0  # a destination at its own rate limit asks for a short pause each second, for hours

STATE_OF_CONDITION = {"closed": "healthy", "open": "paused", "throttled": "throttled", "off": "off"}


class SharedHealth:
    """One destination's health, by this relay's attempts and by the findings of all relays.

    Args:
        name: The destination.
        breaker: The circuit breaker of this relay.
        owner: Writes each finding for the other relays and for people; asks whether this relay may probe.

    Attributes:
        taken_at: When the latest attempt that was taken began.
        failed_at: When the latest attempt that was not taken ended.
    """

    def __init__(self, name: str, breaker: CircuitBreaker[Entry], owner: ToOwner) -> None:
        self.name = name
        self.operator_pause: str | None = None
        self.joined = False  # the breaker is open because of a shared finding
        self._breaker = breaker
        self._owner = owner
        self._resumed_at: str | None = None
        self._is_alone = True  # no other relay is alive
        self._may_probe = self._claimed = False  # a probe is permitted; it is made for all relays
        self.is_asking = False  # this relay has asked whether it may probe, and has no answer yet
        self.taken_at = self.failed_at = -1e9
        self._failing_since = -1e9  # the first failure since an attempt was taken
        self._is_failing = False  # the log says that the destination takes nothing, but not that it is down
        self._note: str | None = None
        self._pause_logged_at = -1e9
        self._is_repeated = False  # the requested pause is short, and follows one that was logged

    @property
    def takes_messages(self) -> bool:
        """Whether the destination takes messages, as far as is known."""
        return self.operator_pause is None and self._breaker.condition == "closed"

    # ------------------------------------------------------- shared findings

    def follow(self, shared_state: SharedState, asked_at: float, now: float, *, alone: bool) -> Ruling[Entry]:
        """Apply the shared state of this destination, as of `asked_at`."""
        self._is_alone = alone
        self._report_taken()
        self._pause(shared_state.reason if shared_state.paused_by == "operator" else None)
        ruling = self._note_resumed(shared_state.resumed_at, now)
        self._report_note(shared_state, now)
        if asked_at < self._breaker.since:
            return ruling  # the evidence of this relay is newer
        if not shared_state.is_down:
            return [*ruling, *self._resume(now, tell=False)] if self.joined else ruling
        if shared_state.state == "paused":
            if shared_state.is_disputed_by(asked_at - self.taken_at):
                self._owner.request(Finding(self.name, "healthy", disputes=True))
                return ruling
            if alone or (self._breaker.condition == "closed" and shared_state.is_fresh):
                return ruling
        return [*ruling, *self._join(shared_state, asked_at)]

    def answer(self, claimed: bool, shared_state: SharedState, asked_at: float) -> Ruling[Entry]:
        """Apply the answer: this relay probes for all relays, or it waits this long for the relay that does."""
        self.is_asking = False
        if self._breaker.condition != "open":
            return []
        self._claimed = claimed
        self._may_probe = claimed or not shared_state.is_down
        return [] if self._may_probe else self._join(shared_state, asked_at)

    def may_probe_or_asks(self) -> bool:
        """Return whether this relay may probe a destination that is down; if not, ask. One relay probes for all."""
        if self._breaker.condition != "open" or self._is_alone or self._may_probe:
            return True
        if not self.is_asking:
            self.is_asking = True
            self._owner.request(Probe(self.name))
        return False

    def _join(self, shared_state: SharedState, asked_at: float) -> Ruling[Entry]:
        """Adopt the shared finding that the destination is down; if this relay found it, too, adopt only the waits."""
        self.joined = True
        breaker = self._breaker
        before = breaker.condition
        if STATE_OF_CONDITION[before] == shared_state.state:
            if not breaker.probing and not self._may_probe and shared_state.wait_s is not None:
                breaker.pauses, breaker.until = max(breaker.pauses, shared_state.pauses), asked_at + shared_state.wait_s
            return []
        ruling = breaker.adopt(shared_state, asked_at)
        if breaker.condition != before:
            self._log_turn(before)
        return ruling

    def _pause(self, reason: str | None) -> None:
        """Set the reason of an operator's pause; ``None`` resumes the destination."""
        if reason == self.operator_pause:
            return
        self.operator_pause = reason
        if reason:
            log.warning("destination_paused_by_operator", destination=self.name, reason=reason)
        else:
            log.info("destination_resumed", destination=self.name)

    def _note_resumed(self, at: str | None, now: float) -> Ruling[Entry]:
        """Note the latest resume by an operator; if it is new, close the breaker."""
        known, self._resumed_at = self._resumed_at, at
        is_news = known != at and (self._breaker.condition != "closed" or bool(self._breaker.suspects))
        return self._resume(now) if is_news else []

    def _resume(self, now: float, *, tell: bool = True) -> Ruling[Entry]:
        before = self._breaker.condition
        ruling = self._breaker.resume(now)
        self.turned(before, now, tell=tell)
        return ruling

    # ------------------------------------------------------------ own findings

    def failed(self, reason: str, now: float) -> None:
        """Note a failed attempt. Log the failures once if they go on and nothing is taken.

        The breaker needs several messages to tell that a destination is down. With few messages, only this line of the
        log shows that a destination does not work.
        """
        self._report_taken()
        breaker = self._breaker
        self.failed_at = now
        if self._failing_since <= max(self.taken_at, breaker.since):
            self._failing_since = now
        if breaker.condition == "closed" and not self._is_failing and now - self._failing_since >= FAILING_S:
            self._is_failing = True
            log.warning("destination_failing", destination=self.name, reason=reason)

    def _report_taken(self) -> None:
        if self._is_failing and self.taken_at > self._failing_since:
            self._is_failing = False
            log.info("destination_back", destination=self.name)

    def turned(self, before: str, now: float, *, tell: bool = True) -> None:
        """Report a changed condition, or a changed time of the next probe, to the log and to the other relays."""
        breaker = self._breaker
        is_probe = self._claimed or self._is_alone
        self._claimed = self._may_probe = self.joined = False
        if breaker.condition != before:
            self._log_turn(before)
        if breaker.condition == "closed":
            if tell:
                self._owner.request(Finding(self.name, "healthy", is_probe=is_probe))
            return
        wait_s = None if breaker.condition == "off" else max(breaker.until - now, 0.0)
        state = STATE_OF_CONDITION[breaker.condition]
        self._owner.request(Finding(self.name, state, breaker.reason, wait_s, breaker.pauses, is_probe=is_probe))

    def _log_turn(self, before: str) -> None:
        breaker = self._breaker
        self._is_failing = False
        if breaker.condition == "throttled":
            self._note_pause()
        if self._is_repeated and {before, breaker.condition} == {"closed", "throttled"}:
            return
        match breaker.condition:
            case "closed" if before != "closed":
                log.info("destination_back", destination=self.name)
            case "open":
                log.warning("destination_down", destination=self.name, reason=breaker.reason)
            case "throttled":
                log.warning("destination_throttled", destination=self.name, reason=breaker.reason)
            case "off":
                log.warning("destination_switched_off", destination=self.name, reason=breaker.reason)

    def _note_pause(self) -> None:
        breaker = self._breaker
        is_short = breaker.until - breaker.since < PAUSES_LOGGED_EVERY_S
        self._is_repeated = is_short and breaker.since < self._pause_logged_at + PAUSES_LOGGED_EVERY_S
        if not self._is_repeated:
            self._pause_logged_at = breaker.since

    def _report_note(self, shared_state: SharedState, now: float) -> None:
        """Report the note about failures of a healthy destination, if it has changed or is of a relay that ended."""
        note = self._describe(now)
        is_left = self._is_alone and note is None and shared_state.note is not None
        if (note == self._note and not is_left) or shared_state.state != "healthy":
            return
        self._note = note
        self._owner.request(Finding(self.name, "healthy", note=note))

    def _describe(self, now: float) -> str | None:
        breaker = self._breaker
        if breaker.condition != "closed" or now - self.failed_at > NOTED_S:
            return None
        if (percent := round(100 * breaker.rate.share)) > 0:
            return f"{percent} % failing"
        count = len(breaker.suspects)
        return f"{count} message{'s' if count > 1 else ''} failing: {breaker.suspects.reason}" if count else None
