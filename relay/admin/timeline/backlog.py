"""Sample the backlog, by destination and state, at a bounded cost (see `relay.observe.backlog`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from outbox.tables import SHARD_COUNT, tables
from relay.admin.access.queries import age_s, now
from relay.admin.relays import RelayStatus, live_relays
from relay.admin.timeline.floors import Floors
from relay.databases.dialect import dialect_of
from relay.databases.store.backlog import BacklogReader, Counts
from relay.decide.subscription import wants
from relay.decide.verdict import READ_PATH, WAITING, State
from relay.observe.backlog import Backlog, DestinationBacklog


def sample(
    connection: sa.Connection, *, floors: Floors | None = None, relays: Sequence[RelayStatus] | None = None
) -> Backlog:
    """Sample the backlog.

    Sampling costs the server tens of milliseconds, even for a long backlog or many settled rows that were not vacuumed
    yet. `relay.observe.backlog` says which numbers are exact and which are estimates.

    Args:
        connection: A connection in a transaction, whose timeout and planner settings are changed.
        floors: The state that the caller's last sample left; ``None`` for a single sample.
        relays: The relays that are alive, if known.
    """
    relays = live_relays(connection) if relays is None else relays
    ask = dialect_of(connection).backlog(connection, (floors or Floors()).walk)
    at = now(connection)
    messages = ask.messages()
    by_state = _by_state(messages)
    return Backlog(
        at=at,
        destinations=_destinations(connection, ask, messages, at),
        messages=by_state,
        unrouted=ask.unrouted(by_state[State.UNROUTED]),
        shards_without_owner=SHARD_COUNT - len({shard for each in relays for shard in each.shards}),
        relays_alive=len(relays),
        is_estimate=ask.is_estimate,
    )


def _destinations(
    connection: sa.Connection, ask: BacklogReader, messages: Counts, at: datetime
) -> dict[str, DestinationBacklog]:
    d = tables().destination
    query = sa.select(d.c.name, d.c.events, d.c.state, d.c.paused_by).where(d.c.removed_at.is_(None))
    rows = connection.execute(query.order_by(d.c.name)).all()
    names = [row.name for row in rows]
    deliveries = ask.deliveries()
    dead = ask.dead(names, deliveries)
    since: defaultdict[str, list[datetime]] = defaultdict(list)
    for name, instant in ask.oldest_set_aside(names):
        since[name].append(instant)
    unread = list(ask.oldest_unread())
    found = {}
    for row in rows:
        is_paused = row.state != "healthy" and row.paused_by == "operator"
        due = [*since[row.name], *(instant for type_, instant in unread if wants(row.events, type_))]
        found[row.name] = DestinationBacklog(
            state=row.state,
            paused_by_operator=is_paused,
            oldest_due_s=age_s(min(due), at) if due and not is_paused else 0.0,
            waiting=_waiting(row.name, row.events, messages, deliveries),
            dead=dead.get(row.name, 0),
        )
    return found


def _waiting(name: str, events: Sequence[str], messages: Counts, deliveries: Counts) -> dict[str, int]:
    unread: dict[str, int] = {
        state: sum(count for (of, type_), count in messages.items() if of == state and wants(events, type_))
        for state in READ_PATH
    }
    return unread | {state: deliveries[name, state] for state in WAITING}


def _by_state(messages: Counts) -> dict[str, int]:
    found: dict[str, int] = dict.fromkeys((*READ_PATH, State.HELD, State.UNROUTED), 0)
    for (state, _), count in messages.items():
        found[state] = found.get(state, 0) + count
    return found
