"""Assemble the event loop's side of a relay: lanes with their parts, workers, crash guard and dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from outbox.tables import SHARD_COUNT
from relay.delivery.completion import Completion
from relay.delivery.crashes.guard import CrashGuard
from relay.delivery.dispatcher import Dispatcher
from relay.delivery.lane import Lane
from relay.delivery.workers import WorkerPool
from relay.destinations.contract import Destination
from relay.destinations.policy import DestinationPolicy
from relay.observe.metrics import Metrics
from relay.observe.payload import ValuesOf
from relay.observe.tracing import system_of
from relay.seam import Lease, ToOwner
from relay.seam.supervision import Supervisor


@dataclass(frozen=True, slots=True)
class LoopSide:
    """The event loop's side of a relay.

    Args:
        dispatcher: Holds the unsettled entries.
        pools: Destination → its workers.
    """

    dispatcher: Dispatcher
    pools: dict[str, WorkerPool]

    async def start(self) -> None:
        """Make the destinations ready, and start their workers."""
        for pool in self.pools.values():
            await pool.start()

    async def finish(self, grace_s: float) -> None:
        """Start no more attempts; wait for those under way; drop the other entries."""
        self.dispatcher.end()
        await asyncio.gather(*(pool.finish(grace_s) for pool in self.pools.values()))
        self.dispatcher.release(range(SHARD_COUNT))

    async def close(self) -> None:
        """Close the destinations."""
        await asyncio.gather(*(pool.destination.close() for pool in self.pools.values()))


def assemble(
    destinations: Sequence[Destination],
    policies: Mapping[str, DestinationPolicy],
    *,
    owner: ToOwner,
    lease: Lease,
    window: int,
    metrics: Metrics,
    supervisor: Supervisor,
    clock: Callable[[], float],
    values_of: ValuesOf | None = None,
) -> LoopSide:
    """Return the event loop's side of a relay.

    Args:
        destinations: The destinations.
        policies: Destination → its settings.
        owner: Reaches the owning thread.
        lease: Knows whether the relay may send.
        window: The most unsettled entries.
        metrics: Counts messages that are read, and verdicts.
        supervisor: Ends the relay when a worker ends by an error.
        clock: The time, in seconds.
        values_of: Returns the values of a message that logs and reasons must not show; ``None``: there are none.
    """
    completion = Completion(owner, metrics)
    lanes: dict[str, Lane] = {}
    guard = CrashGuard(lanes, window=window, owner=owner, lease=lease, clock=clock)
    pools: dict[str, WorkerPool] = {}
    for destination in destinations:
        name = destination.name
        lanes[name] = Lane(
            name,
            policies[name],
            concurrency=destination.concurrency,
            limit=max(window // len(destinations), 1),
            has_siblings=len(destinations) > 1,
            owner=owner,
            lease=lease,
            may_send=guard.is_open,
            on_complete=completion.complete,
            on_failure=partial(metrics.failed, name),
            clock=clock,
        )
        pools[name] = WorkerPool(
            destination,
            lanes[name],
            supervisor=supervisor,
            clock=clock,
            system=system_of(policies[name].kind),
            values_of=values_of,
        )
    dispatcher = Dispatcher(
        lanes, completion=completion, crash_guard=guard, owner=owner, lease=lease, window=window, metrics=metrics
    )
    return LoopSide(dispatcher, pools)
