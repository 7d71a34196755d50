"""Why attempts failed and deliveries died: a bounded number of causes for each destination.

A failure costs a dictionary look-up here, and a delivery that is taken costs nothing. Each count is kept twice: for
Prometheus, which needs the same series as long as the process lives, and since the last sample of the dashboard.
"""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import Literal

from prometheus_client import CollectorRegistry, Counter

from relay.decide.outcome import cause_of
from relay.observe.text import one_line, redacted

CAUSES = 20  # causes of a destination that have a series of their own
CAUSES_IN_A_SAMPLE = 8  # causes of a destination that are kept apart between two samples
OTHER, UNKNOWN = "other", "unknown"

What = Literal["failed", "dead"]
Counts = dict[str, dict[str, dict[What, float]]]  # destination → cause → what → count


class Causes:
    """Counts failures by destination and cause.

    Args:
        registry: Shows the counts to Prometheus.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        series: dict[What, tuple[str, str]] = {
            "failed": ("outbox_failed_attempts", "Attempts that failed, charged or not"),
            "dead": ("outbox_new_dead_letters", "Deliveries that became dead letters"),
        }
        kept = f"by cause; beyond {CAUSES} causes of a destination: {OTHER}"
        self._series = {
            what: Counter(name, f"{counted}, {kept}", ["destination", "cause"], registry=registry)
            for what, (name, counted) in series.items()
        }
        self._shown: dict[str, set[str]] = {}
        self._counts: Counts = {}
        self._lock = Lock()

    def count(self, destination: str, what: What, reason: str | None, count: float = 1) -> None:
        """Count failures of one cause.

        Args:
            destination: The destination's name.
            what: ``failed`` for attempts, ``dead`` for deliveries that were given up.
            reason: The reason of one of them.
            count: Their number.
        """
        cause = _label(reason or UNKNOWN)
        with self._lock:
            shown = self._shown.setdefault(destination, set())
            self._series[what].labels(destination, _within(shown, cause, CAUSES)).inc(count)
            shown.add(_within(shown, cause, CAUSES))
            causes = self._counts.setdefault(destination, {})
            counts = causes.setdefault(_within(causes, cause, CAUSES_IN_A_SAMPLE), {})
            counts[what] = counts.get(what, 0) + count

    def take(self) -> Counts:
        """Return what was counted since the last call."""
        with self._lock:
            taken, self._counts = self._counts, {}
        return taken


def _within(known: set[str] | dict[str, dict[What, float]], cause: str, limit: int) -> str:
    """Return a cause that is known or has room; else ``other``."""
    return cause if cause in known or len(known) < limit else OTHER


@lru_cache(maxsize=1024)
def _label(reason: str) -> str:
    return one_line(redacted(cause_of(reason)))
