"""A lane and its workers, without a database: entries go in, and decisions come out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields, replace
from time import monotonic
from typing import Any

from outbox import Message
from relay.decide.backoff import Policy
from relay.decide.shared_state import Finding
from relay.delivery import assembly
from relay.delivery.assembly import LaneSettings
from relay.delivery.lane import Lane
from relay.delivery.workers import Idle, WorkerPool
from relay.observe.supervision import Supervisor
from relay.seam.entry import Entry
from support.waiting import eventually_async

EPOCH = 1


def make_lane(**options: Any) -> Lane:
    """Make a lane that may send, and that reports to no one."""
    settings = LaneSettings("api", policy=Policy(backoff_s=0.01), concurrency=1, limit=1000)
    of_settings = {each.name for each in fields(LaneSettings)}
    calls: dict[str, Any] = {
        "on_complete": lambda _: None,
        "on_finding": lambda _: None,
        "on_probe": lambda _: None,
        "on_claim": lambda _: None,
        "on_ready": lambda _count: None,
        "on_failure": lambda _reason: None,
        "may_send": lambda _now: True,
        "clock": monotonic,
    }
    calls |= {name: value for name, value in options.items() if name not in of_settings}
    lane = assembly.make_lane(
        replace(settings, **{name: value for name, value in options.items() if name in of_settings}), **calls
    )
    lane.validity.begin_session(EPOCH)
    return lane


def make_entry(lane: Any, id_: str, position: int, key: str | None = None, data: str = "{}") -> Entry:
    """Make a message that one destination wants."""
    row = (id_, position, 0, 0, "t", "outbox", None, key, data, "{}", "2026-01-01", None, None, None)
    return Entry(row, (lane,), EPOCH)


class Harness:
    """A lane with workers, what it has finished, and what it reports about its destination."""

    def __init__(self, destination: Any, **options: Any) -> None:
        self.finished: list[Entry] = []
        self.findings: list[Finding] = []
        self.failures: list[BaseException] = []
        self.lane = make_lane(
            concurrency=destination.concurrency,
            on_complete=self.finished.append,
            on_finding=self.findings.append,
            on_ready=(idle := Idle()).wake,
            **options,
        )
        supervisor = Supervisor(self.failures.append)
        self.pool = WorkerPool(destination, self.lane, idle, supervisor=supervisor, clock=monotonic)

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
