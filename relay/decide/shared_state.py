"""The shared knowledge of all relays about a destination, in its row of ``outbox_destination``.

Each relay judges by its own attempts (`relay.decide.breaker`). It reports its findings and follows those of its peers,
so ten relays probe a destination that is down no more often than one relay would.

| the row says       | a relay that reads it                                                                         |
|--------------------|-----------------------------------------------------------------------------------------------|
| paused, with until | starts nothing; when `until` has come, one relay claims the probe, for all                    |
| throttled          | starts nothing until that time                                                                |
| off                | starts nothing, until an operator resumes it                                                  |
| paused by operator | starts nothing, until an operator resumes it                                                  |
| healthy            | goes on; if it had joined a pause, that pause is over                                         |

If an attempt that began *after* a pause was declared succeeds, its relay **disputes** the pause: a relay with a broken
network must not stop its peers. For `DISPUTED_S` after that, a relay that finds the destination down does not report
it, and probes by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

DISPUTED_S = 60.0
FRESH_S = 1.0  # a relay follows a pause only after this time, unless it finds the fault itself
MARGIN_S = 0.1  # the allowed difference between our clock and the database's
PROBE_LEASE_S = 15.0  # for this time, other relays leave a probe to the relay that claimed it
# No relay writes a longer wait. One that ends later was written before the clock was set back, and is over.
LONGEST_PAUSE_S, LONGEST_THROTTLE_S = 60.0, 3_660.0


@dataclass(frozen=True, slots=True)
class SharedState:
    """The shared state of a destination, as its row had it at one moment.

    Args:
        state: ``healthy``, ``paused``, ``throttled`` or ``off``.
        paused_by: ``operator`` or ``failure``; ``None`` when healthy.
        reason: Why it is not healthy.
        wait_s: Seconds until it is probed or may be tried again; negative after that time.
        pauses: The number of pauses in a row; the waits between probes grow with it.
        age_s: Seconds since this was declared.
        resumed_at: When an operator last resumed it.
        note: For a healthy destination: the failure that occurs now and then.
    """

    state: str
    paused_by: str | None = None
    reason: str | None = None
    wait_s: float | None = None
    pauses: int = 0
    age_s: float = 0.0
    resumed_at: str | None = None
    note: str | None = None

    @property
    def is_down(self) -> bool:
        """Whether relays found that the destination takes no messages now."""
        if self.paused_by != "failure":
            return False
        match self.state:
            case "off":
                return True
            case "paused":
                return self.wait_s is not None
        return self.wait_s is not None and self.wait_s > 0

    @property
    def is_fresh(self) -> bool:
        """Whether the pause is so new that a relay that finds the destination healthy may continue for now."""
        return self.age_s < FRESH_S

    def is_disputed_by(self, success_age_s: float) -> bool:
        """Return whether an attempt that began this many seconds ago and was taken contradicts the pause."""
        return success_age_s < self.age_s - MARGIN_S


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of a relay about a destination, to be written into its row.

    Args:
        name: The destination.
        state: As in `SharedState`.
        reason: Why it is not healthy.
        wait_s: Seconds until the next probe; ``None`` if there is no probe to wait for.
        pauses: Pauses in a row.
        is_probe: Whether it is the result of a probe that this relay made for all relays. Such a finding may change the
            row.
        disputes: Whether it contradicts a pause that another relay declared.
        note: For a healthy destination: the failure that occurs now and then.
    """

    name: str
    state: str
    reason: str | None = None
    wait_s: float | None = None
    pauses: int = 0
    is_probe: bool = False
    disputes: bool = False
    note: str | None = None
