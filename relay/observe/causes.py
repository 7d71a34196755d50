"""Count why attempts failed and deliveries died: a bounded number of causes for each destination.

A failure costs a dictionary look-up here, and a delivery that is taken costs nothing. Each count is kept twice: once
for Prometheus, which needs the same series as long as the process lives, and once since the last sample for the
dashboard.
"""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import Literal

from prometheus_client import CollectorRegistry, Counter

from relay.decide.outcome import cause_of
from relay.observe.text import one_line, redacted

CAUSES = 20  # how many causes of a destination have their own series
CAUSES_IN_A_SAMPLE = 8  # how many causes of a destination are counted separately between two samples
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
    """Return the cause if it is known or if there is room for it; else ``other``."""
    return cause if cause in known or len(known) < limit else OTHER


@lru_cache(maxsize=1024)
def _label(reason: str) -> str:
    return one_line(redacted(cause_of(reason)))
