"""Sample the backlog, by destination and state, at a bounded cost (see `relay.observe.backlog`)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import SHARD_COUNT, Instant, tables
from relay.admin.access.queries import age_s, by_index, now
from relay.admin.relays import RelayStatus, live_relays
from relay.decide.subscription import wants
from relay.decide.verdict import READ_PATH, WAITING, State
from relay.observe.backlog import Backlog, DestinationBacklog
from relay.store.postgres.sql import backlog as postgres
from relay.store.sqlite.sql import backlog as sqlite

PAGES = 256  # pages of a table that are read; 2 MiB
EXACT = 1_000  # up to this count, a destination's dead letters, and unrouted messages, are counted exactly
OLDEST_OF_EACH_SHARD = 8  # ready messages of a shard that are read to find the oldest of each destination
NEXT_OF_EACH_SHARD = 16
COUNTED = 100_000  # rows of an SQLite table that are counted
TIMEOUT_MS = 1_000
ANEW_EVERY = 8  # samples; then the oldest ready messages are searched from the left end of the index again
SINCE = {"since": Instant}

Counts = Counter[tuple[str, str]]


@dataclass
class Floors:
    """The position of the first ready message of each shard at the last sample.

    Settled rows stay in the index until vacuum, which a long transaction holds up; reads begin at these positions to
    skip them. Messages that become ready below are found when the floors are reset.
    """

    of_shard: list[int] = field(default_factory=lambda: [0] * SHARD_COUNT)
    samples: int = 0

    def begin(self) -> None:
        if self.samples % ANEW_EVERY == 0:
            self.of_shard = [0] * SHARD_COUNT
        self.samples += 1


def sample(
    connection: sa.Connection, *, floors: Floors | None = None, relays: Sequence[RelayStatus] | None = None
) -> Backlog:
    """Sample the backlog.

    It costs the server tens of milliseconds at most, for any size of the backlog. `relay.observe.backlog` says which
    numbers are exact and which are estimates.

    Args:
        connection: In a transaction, whose timeout and planner settings it changes.
        floors: The state of the same caller's last sample; ``None`` for a single one.
        relays: The relays that are alive, if known.
    """
    relays = live_relays(connection) if relays is None else relays
    ask: _Postgres | _Sqlite
    if connection.dialect.name == "postgresql":
        by_index(connection)
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
        ask = _Postgres(connection, floors or Floors())
    else:
        ask = _Sqlite(connection)
    at = now(connection)
    messages = ask.messages()
    return Backlog(
        at=at,
        destinations=_destinations(connection, ask, messages, at),
        messages=_by_state(messages),
        unrouted=ask.unrouted(messages),
        shards_without_owner=SHARD_COUNT - len({shard for each in relays for shard in each.shards}),
        relays_alive=len(relays),
        is_estimate=ask.is_estimate,
    )


def _destinations(
    connection: sa.Connection, ask: _Postgres | _Sqlite, messages: Counts, at: datetime
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


class _Postgres:
    def __init__(self, connection: sa.Connection, floors: Floors) -> None:
        self._connection, self._floors = connection, floors
        self.is_estimate = False
        floors.begin()

    def messages(self) -> Counts:
        return self._sampled("outbox_message", postgres.SAMPLED_MESSAGES)

    def deliveries(self) -> Counts:
        return self._sampled("outbox_delivery", postgres.SAMPLED_DELIVERIES)

    def oldest_unread(self) -> Iterator[tuple[str, datetime]]:
        floors = self._floors.of_shard
        seen: set[int] = set()
        for row in self._rows(postgres.OLDEST_READY, floors=list(floors), rows=OLDEST_OF_EACH_SHARD):
            if row.shard not in seen:
                seen.add(row.shard)
                floors[row.shard] = row.position
            yield row.type, row.since
        for row in self._rows(postgres.OLDEST_SCHEDULED, rows=OLDEST_OF_EACH_SHARD):
            yield row.type, row.since

    def oldest_set_aside(self, destinations: Sequence[str]) -> Iterator[tuple[str, datetime]]:
        for row in self._rows(postgres.OLDEST_PARKED, destinations=list(destinations)):
            yield row.destination, row.since
        for row in self._rows(postgres.OLDEST_RETRIES, rows=NEXT_OF_EACH_SHARD):
            yield row.destination, row.since

    def dead(self, destinations: Sequence[str], counted: Counts) -> Mapping[str, int]:
        query = sa.text(postgres.DEAD)
        rows = self._connection.execute(query, {"destinations": list(destinations), "rows": EXACT})
        return {row.destination: _larger(row.found, counted[row.destination, State.DEAD]) for row in rows}

    def unrouted(self, counted: Counts) -> int:
        found = self._connection.execute(sa.text(postgres.UNROUTED), {"rows": EXACT}).scalar_one()
        return _larger(found, _by_state(counted)[State.UNROUTED])

    def _sampled(self, table: str, statement: str) -> Counts:
        """Count the rows of some pages, and extrapolate."""
        pages = self._connection.exec_driver_sql(postgres.PAGES.format(table=table)).scalar_one()
        percent = 100.0 if pages <= PAGES else 100.0 * PAGES / pages
        self.is_estimate = self.is_estimate or percent < 100
        rows = self._connection.execute(sa.text(statement), {"percent": percent})
        return Counter({(row[0], row[1]): round(row.found * 100 / percent) for row in rows})

    def _rows(self, statement: str, **parameters: Any) -> Iterator[sa.Row[Any]]:
        yield from self._connection.execute(sa.text(statement), parameters)


def _larger(exact: int, estimated: int) -> int:
    """Return the exact count, or the estimate where counting stopped."""
    return exact if exact < EXACT else max(exact, estimated)


class _Sqlite:
    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self.is_estimate = False

    def messages(self) -> Counts:
        return self._counted(sqlite.COUNTED_MESSAGES)

    def deliveries(self) -> Counts:
        return self._counted(sqlite.COUNTED_DELIVERIES)

    def oldest_unread(self) -> Iterator[tuple[str, datetime]]:
        for statement in (sqlite.OLDEST_READY, sqlite.OLDEST_SCHEDULED):
            yield from self._since(statement, rows=OLDEST_OF_EACH_SHARD * SHARD_COUNT)

    def oldest_set_aside(self, destinations: Sequence[str]) -> Iterator[tuple[str, datetime]]:
        for each in destinations:
            yield from self._since(sqlite.OLDEST_PARKED, destination=each)
        yield from self._since(sqlite.OLDEST_RETRIES, rows=NEXT_OF_EACH_SHARD * SHARD_COUNT)

    def dead(self, destinations: Sequence[str], counted: Counts) -> Mapping[str, int]:
        return {name: counted[name, State.DEAD] for name in destinations}

    def unrouted(self, counted: Counts) -> int:
        return _by_state(counted)[State.UNROUTED]

    def _counted(self, statement: str) -> Counts:
        rows = self._connection.execute(sa.text(statement), {"counted": COUNTED}).all()
        self.is_estimate = self.is_estimate or sum(row.found for row in rows) == COUNTED
        return Counter({(row[0], row[1]): row.found for row in rows})

    def _since(self, statement: str, **parameters: Any) -> Iterator[tuple[str, datetime]]:
        """Yield the rows of a statement: a type or a destination, and the instant of its oldest message."""
        query = sa.text(statement).columns(**SINCE)
        for row in self._connection.execute(query, parameters):
            yield row[0], row[1]
