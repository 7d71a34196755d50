"""A lane and its workers, without a database: entries go in, and decisions come out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from types import SimpleNamespace
from typing import Any

from outbox import Message
from relay.decide.backoff import Policy
from relay.delivery.lane import Lane
from relay.delivery.workers import WorkerPool
from relay.seam import Lease
from relay.seam.entry import Entry
from relay.seam.supervision import Supervisor
from support.waiting import eventually_async

EPOCH = 1


def make_lane(**options: Any) -> Lane:
    """Make a lane that may send, and that reports to no one."""
    policy: Any = SimpleNamespace(
        retry_policy=options.pop("policy", Policy(backoff_s=0.01)),
        rate_limit=options.pop("rate", None),
        expires_in=options.pop("expires_in_s", None),
        on_dead=options.pop("on_dead", "block"),
        events=["*"],
    )
    requests = options.pop("requests", [])
    owner: Any = SimpleNamespace(request=requests.append)
    calls: dict[str, Any] = {
        "concurrency": 1,
        "limit": 1000,
        "has_siblings": False,
        "lease": Lease(15.0),
        "may_send": lambda _now: True,
        "on_complete": lambda _: None,
        "on_failure": lambda _reason: None,
        "clock": monotonic,
    }
    lane = Lane("api", policy, owner=owner, **calls | options)
    lane.admission._lease.arrived_epoch = EPOCH
    return lane


def make_entry(lane: Any, id_: str, position: int, key: str | None = None, data: str = "{}", type_: str = "t") -> Entry:
    """Make a message that one destination wants."""
    row = (id_, position, 0, 0, type_, "outbox", None, key, data, "{}", "2026-01-01", None, None, None)
    return Entry(row, (lane,), EPOCH)


class Harness:
    """A lane with workers, what it has finished, and what it reports about its destination."""

    def __init__(self, destination: Any, **options: Any) -> None:
        self.finished: list[Entry] = []
        self.findings: list[Any] = []
        self.failures: list[BaseException] = []
        self.lane = make_lane(
            concurrency=destination.concurrency,
            on_complete=self.finished.append,
            requests=self.findings,
            **options,
        )
        supervisor = Supervisor(self.failures.append)
        self.pool = WorkerPool(destination, self.lane, supervisor=supervisor, clock=monotonic)

    def offer(self, *entries: tuple[str, str | None, str]) -> None:
        """Take newcomers in, in their order."""
        for position, (id_, key, data) in enumerate(entries):
            self.lane.accept(make_entry(self.lane, id_, position, key, data), None)
        self.lane.announce()

    @property
    def states(self) -> dict[str, str]:
        """The decision on each entry."""
        return {e.id: e.verdict_of("api").state for e in self.finished}

    async def until_finished(self, count: int) -> dict[str, str]:
        """Return the decision on each entry, after this number of decisions."""
        await eventually_async(lambda: len(self.finished) >= count)
        return self.states


async def run(
    destination: Any, entries: Sequence[tuple[str, str | None, str]], count: int | None = None, **options: Any
) -> dict[str, str]:
    """Send these entries; return the decision on each, after this number of decisions."""
    harness = Harness(destination, **options)
    harness.offer(*entries)
    await harness.pool.start()
    try:
        return await harness.until_finished(len(entries) if count is None else count)
    finally:
        await harness.pool.finish(1)
        assert harness.failures == []


async def yield_often(times: int = 20) -> None:
    """Let everything run that can run."""
    for _ in range(times):
        await asyncio.sleep(0)


__all__ = ["EPOCH", "Harness", "Message", "make_entry", "make_lane", "run", "yield_often"]
