"""The metrics of this process: a relay, the receiving API, a consumer, or several of them.

A receiver has no relay, so its metrics are counted per process. If a relay runs in the same process, they are shown
together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

BUILD_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REGISTRY = CollectorRegistry()

_builds = Histogram(
    "outbox_baseline_build_seconds",
    "Duration of the baseline listener's calls by result: built, present (it existed), rejected or failed",
    ["result"],
    buckets=BUILD_BUCKETS_S,
    registry=REGISTRY,
)
_inbox = Counter(
    "outbox_inbox_messages",
    "Messages passed to listeners with a session: new, or duplicate (processed before, and skipped)",
    ["listener", "result"],
    registry=REGISTRY,
)
_dropped = Counter(
    "outbox_broker_duplicates",
    "Messages that a destination's broker already had",
    ["destination"],
    registry=REGISTRY,
)
_requests = Histogram(
    "outbox_http_request_seconds",
    "Time from a request to the answer of the receiving API",
    ["route", "status"],
    buckets=REQUEST_BUCKETS_S,
    registry=REGISTRY,
)


class Build:
    """One call of the baseline listener; its result is ``failed`` until it is set."""

    result = "failed"


@contextmanager
def building() -> Iterator[Build]:
    """Measure one call of the baseline listener."""
    build, began_at = Build(), perf_counter()
    try:
        yield build
    finally:
        _builds.labels(build.result).observe(perf_counter() - began_at)


def inbox(listener: str, *, is_new: bool) -> None:
    """Count a message that was passed to a listener with a session.

    Args:
        listener: The listener's name in the inbox.
        is_new: Whether the listener had not processed the message before.
    """
    _inbox.labels(listener, "new" if is_new else "duplicate").inc()


def broker_duplicates(destination: str, count: int) -> None:
    """Count messages that a broker already had."""
    _dropped.labels(destination).inc(count)


def request(route: str, status: int, duration_s: float) -> None:
    """Count an answer of the receiving API.

    Args:
        route: The route's path, as declared.
        status: The status code of the answer.
        duration_s: The time until the answer, in seconds.
    """
    _requests.labels(route, str(status)).observe(duration_s)


def text() -> bytes:
    """Return all metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
