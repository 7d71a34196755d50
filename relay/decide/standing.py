"""What the relays know of a destination together, through its row in ``outbox_destination``.

Each relay judges by what happens to its own attempts (`relay.decide.breaker`). What it finds out it reports, and what
the others found out it heeds, so that ten relays do not probe a destination that is down ten times as hard as one.

| the row says       | a relay that finds it so                                                                      |
|--------------------|-----------------------------------------------------------------------------------------------|
| paused, with until | starts nothing; when `until` has come, one relay claims the probe, for all                    |
| throttled          | starts nothing until then                                                                     |
| off                | starts nothing, until an operator resumes it                                                  |
| paused by operator | starts nothing, until an operator resumes it                                                  |
| healthy            | goes on; had it joined a pause, that is over                                                  |

A relay that has a destination's latest success from an attempt that began *after* a pause was declared **disputes** it:
one relay whose own network is broken must not stop the others. For `DISPUTED_S` after that, a relay that finds the
destination down keeps it to itself and probes by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

DISPUTED_S = 60.0
FRESH_S = 1.0  # a relay at work gets so long to find out by itself
MARGIN_S = 0.1  # between our clock and the database's, when one is reckoned from the other
PROBE_LEASE_S = 15.0  # how long the others leave a probe to the relay that claimed it


@dataclass(frozen=True, slots=True)
class Standing:
    """What a destination's row says, as of one moment.

    Args:
        state: ``healthy``, ``paused``, ``throttled`` or ``off``.
        paused_by: ``operator`` or ``failure``; ``None`` when healthy.
        reason: Why it is not healthy.
        wait_s: Seconds until it is to be probed, or may be tried again; negative once that has passed.
        pauses: Pauses in a row: how far the waits between probes have grown.
        age_s: Seconds since this was declared.
        resumed_at: When an operator resumed it the last time.
    """

    state: str
    paused_by: str | None = None
    reason: str | None = None
    wait_s: float | None = None
    pauses: int = 0
    age_s: float = 0.0
    resumed_at: str | None = None

    @property
    def is_down(self) -> bool:
        """Whether relays found out that it takes nothing now."""
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
        """Whether a relay that finds the destination well may go on for now."""
        return self.age_s < FRESH_S

    def is_disputed_by(self, success_age_s: float) -> bool:
        """Return whether an attempt that began this many seconds ago, and was taken, contradicts it."""
        return success_age_s < self.age_s - MARGIN_S


@dataclass(frozen=True, slots=True)
class Finding:
    """What a relay found out about a destination, on its way into the row.

    Args:
        name: The destination.
        state: As in `Standing`.
        reason: Why it is not healthy.
        wait_s: Seconds until the next probe; ``None`` when there is none to wait for.
        pauses: Pauses in a row.
        is_probe: Whether a probe that all relays left to this one showed it: then the row is its to change.
        disputes: Whether it contradicts a pause that another relay declared.
        note: Of a healthy destination: what fails at it now and then.
    """

    name: str
    state: str
    reason: str | None = None
    wait_s: float | None = None
    pauses: int = 0
    is_probe: bool = False
    disputes: bool = False
    note: str | None = None
