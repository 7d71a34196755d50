"""What must be true at every moment of a simulated life."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import inf
from typing import Any

from simulation.relay import SimRelay
from simulation.store import Message, Tables

from relay.delivery.lane import Lane
from relay.delivery.queue import DeliveryQueue
from relay.seam.entry import Entry


def check_relay(relay: SimRelay) -> Iterator[str]:
    """Check that each entry in memory has a way out, and that every count is right."""
    held: dict[Any, Entry] = relay.dispatcher._held
    for lane in relay.dispatcher.lanes.values():
        yield from check_lane(lane)
        here = set(_everything(lane.queue))
        for entry in held.values():
            is_wanted = any(each is lane for each in entry.lanes)
            is_open = is_wanted and lane.name not in (entry.verdicts or {}) and entry.open > 0
            if is_open and len(entry.lanes) == 1 and entry not in here:
                yield f"{entry.handle} is held for {lane.name} and is in none of its places"
        for entry in here:
            if held.get(entry.handle) is not entry:
                yield f"{entry.handle} is at {lane.name} and not held"


def check_lane(lane: Lane) -> Iterator[str]:
    """Check that the places of a queue are disjoint, its chains have heads, and suspects have a time."""
    queue, places = lane.queue, list(_everything(lane.queue))
    if len(places) != len(set(places)):
        yield f"{lane.name}: an entry is in two places"
    if queue.size != len(places):
        yield f"{lane.name}: {queue.size} are counted and {len(places)} are there"
    heads = set(_heads(queue))
    for chain in queue.chains:
        if chain.head not in heads:
            yield f"{lane.name}: the head of {chain.head.key} may not be sent and is not under way"
    for entry in heads:
        chain_of_key = queue.chains.of(entry.key)
        if entry.key is not None and chain_of_key is None:
            yield f"{lane.name}: {entry.id} has no chain of its key"
        elif chain_of_key is not None and chain_of_key.head is not entry:
            yield f"{lane.name}: {entry.id} is not the head of its key"
    if set(lane.breaker.suspects.waiting) != set(queue.suspects):
        yield f"{lane.name}: the breaker and the queue keep different suspects"
    if not set(queue.set_back) <= set(places):
        yield f"{lane.name}: something is set back that is not here"


def check_blocked(tables: Tables) -> Iterator[tuple[tuple[str, str], str]]:
    """Check that exactly those deliveries are blocked that wait behind an unfinished earlier message of their key."""
    blocked = {what: d for what, d in tables.deliveries.items() if d.state == "blocked"}
    of_key: defaultdict[str | None, list[Message]] = defaultdict(list)
    for m in tables.messages.values() if blocked else ():
        of_key[m.key].append(m)
    first: dict[tuple[str | None, str], float] = {}
    for what, d in blocked.items():
        where = d.message.key, what[1]
        if where not in first:
            first[where] = min(
                (m.position for m in of_key[d.message.key] if _holds_up(tables, m, what[1])), default=inf
            )
        if first[where] >= d.message.position:
            yield what, f"{d.message.number} is blocked at {what[1]} behind nothing"


def _holds_up(tables: Tables, message: Message, destination: str) -> bool:
    return tables.wants(destination, message.type) and not tables.is_done(message, destination)


def _heads(queue: DeliveryQueue) -> Iterator[Entry]:
    yield from queue.startable
    yield from queue.under_way.values()
    yield from queue.suspects


def _everything(queue: DeliveryQueue) -> Iterator[Entry]:
    yield from _heads(queue)
    yield from queue.chains.successors()
