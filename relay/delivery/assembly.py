"""The event loop's side of a relay, put together: lanes with their parts, workers, crash guard and dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from outbox.tables import SHARD_COUNT
from relay.decide.backoff import Policy
from relay.decide.breaker import CircuitBreaker
from relay.decide.rate import Rate
from relay.decide.shared_state import Finding
from relay.delivery.admission.admission import Admission
from relay.delivery.admission.rate_limit import RateLimit
from relay.delivery.admission.validity import Validity
from relay.delivery.completion import Completion
from relay.delivery.crashes.guard import CrashGuard, TrialGate
from relay.delivery.crashes.records import CrashRecords
from relay.delivery.dispatcher import Dispatcher
from relay.delivery.health import SharedHealth
from relay.delivery.lane import Lane
from relay.delivery.queue import DeliveryQueue
from relay.delivery.workers import Idle, WorkerPool
from relay.destinations.contract import Destination
from relay.observe.metrics import Metrics
from relay.observe.payload import ValuesOf
from relay.observe.supervision import Supervisor
from relay.observe.tracing import SYSTEM
from relay.seam import Claim, Entry, Lease, ToOwner


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """The settings of one lane.

    Args:
        name: The destination.
        policy: Its limits of attempts and time, and its backoff.
        concurrency: Attempts under way at once at most.
        limit: Entries in memory at most, without those that are set back.
        on_dead: The effect of a dead letter on its key's successors: ``"block"`` or ``"skip"``.
        has_siblings: Whether there are other destinations.
        expires_in_s: The age in seconds, since it was written or fell due, at which a message is not sent any more.
        rate: How many attempts may start in a time; ``None``: any number.
        events: The event types that it wants, globs allowed.
        system: What kind of system it is, in traces.
    """

    name: str
    policy: Policy
    concurrency: int
    limit: int
    on_dead: str = "block"
    has_siblings: bool = False
    expires_in_s: float | None = None
    rate: Rate | None = None
    events: Sequence[str] = field(default_factory=tuple)
    system: str = SYSTEM


def make_lane(
    settings: LaneSettings,
    *,
    on_complete: Callable[[Entry], None],
    on_finding: Callable[[Finding], None],
    on_probe: Callable[[str], None],
    on_claim: Callable[[Claim], None],
    on_ready: Callable[[int], None],
    on_failure: Callable[[str], None],
    may_send: Callable[[float], bool],
    clock: Callable[[], float],
) -> Lane:
    """Return the lane of one destination.

    Args:
        settings: Its settings.
        on_complete: Called with an entry when the last of its verdicts is in.
        on_finding: Called with each finding for the other relays and for people.
        on_probe: Called with the name when it is time to probe it; `Lane.answer` says whether this relay may.
        on_claim: Called when a share of its rate is needed; `Lane.answer_claim` says how large it is.
        on_ready: Called with how many attempts may start now.
        on_failure: Called with the reason of each attempt that failed.
        may_send: Returns whether the relay owns its entries at a time.
        clock: The time, in seconds.
    """
    name, rate = settings.name, settings.rate
    queue = DeliveryQueue(name, limit=settings.limit, on_dead=settings.on_dead, on_complete=on_complete)
    breaker: CircuitBreaker[Entry] = CircuitBreaker(settings.policy)
    health = SharedHealth(name, breaker, on_finding=on_finding, on_probe=on_probe)
    admission = Admission(
        queue,
        breaker,
        health,
        may_send=may_send,
        concurrency=settings.concurrency,
        rate_limit=RateLimit(name, rate, on_claim=on_claim) if rate is not None else None,
    )
    return Lane(
        queue,
        breaker,
        health,
        admission,
        Validity(settings.expires_in_s),
        policy=settings.policy,
        has_siblings=settings.has_siblings,
        clock=clock,
        on_ready=on_ready,
        on_failure=on_failure,
    )


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
    destinations: Sequence[tuple[Destination, LaneSettings]],
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
        destinations: The destinations, with the settings of each.
        owner: Reaches the owning thread.
        lease: Whether the relay may send.
        window: Unsettled entries at most.
        metrics: Counts messages that are read, and verdicts.
        supervisor: Ends the relay when a worker ends by an error.
        clock: The time, in seconds.
        values_of: Returns the values of a message that logs and reasons must not show; ``None``: there are none.
    """
    completion, gate = Completion(owner, metrics), TrialGate(lease)
    lanes: dict[str, Lane] = {}
    pools: dict[str, WorkerPool] = {}
    for destination, settings in destinations:
        idle = Idle()
        lane = lanes[settings.name] = make_lane(
            settings,
            on_complete=completion.complete,
            on_finding=owner.report,
            on_probe=owner.ask_to_probe,
            on_claim=owner.claim,
            on_ready=idle.wake,
            on_failure=partial(metrics.failed, settings.name),
            may_send=gate.is_open,
            clock=clock,
        )
        pools[settings.name] = WorkerPool(
            destination,
            lane,
            idle,
            supervisor=supervisor,
            clock=clock,
            system=settings.system,
            values_of=values_of,
        )
    guard = CrashGuard(lanes, gate, CrashRecords(window), owner=owner, lease=lease, clock=clock)
    dispatcher = Dispatcher(
        list(lanes.values()),
        {settings.name: settings.events for _, settings in destinations},
        completion=completion,
        crash_guard=guard,
        owner=owner,
        lease=lease,
        window=window,
        metrics=metrics,
    )
    return LoopSide(dispatcher, pools)
