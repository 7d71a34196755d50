"""Sample the backlog, by destination and state, at a bounded cost (see `relay.observe.backlog`)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import Any

import sqlalchemy as sa

from outbox.tables import SHARD_COUNT, Instant, tables
from relay.admin.access.queries import age_s, by_index, now
from relay.admin.relays import RelayStatus, live_relays
from relay.admin.timeline.floors import Floors
from relay.decide.subscription import wants
from relay.decide.verdict import READ_PATH, WAITING, State
from relay.observe.backlog import Backlog, DestinationBacklog
from relay.store.postgres.sql import backlog as postgres
from relay.store.sqlite.sampling import sample_of
from relay.store.sqlite.sql import backlog as sqlite

PAGES = 256  # pages of a table that are read; 2 MiB
EXACT = 1_000  # up to this count, a destination's dead letters, and unrouted messages, are counted exactly
OLDEST_OF_EACH_SHARD = 8  # ready messages of a shard that are read to find the oldest of each destination
NEXT_OF_EACH_SHARD = 16
COUNTED = 100_000  # rows of an SQLite table that are counted; of a larger one, some windows are
TIMEOUT_MS = 1_000
BUDGET_MS = 60  # for all that is read from indexes, which may hold any number of settled rows; then estimates do
QUERY_CANCELED = "57014"
SINCE = {"since": Instant}

Counts = Counter[tuple[str, str]]


def sample(
    connection: sa.Connection, *, floors: Floors | None = None, relays: Sequence[RelayStatus] | None = None
) -> Backlog:
    """Sample the backlog.

    It costs the server tens of milliseconds, for any size of the backlog and any number of settled rows that were not
    vacuumed yet. `relay.observe.backlog` says which numbers are exact and which are estimates.

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
        self._left_ms = float(BUDGET_MS)
        self._oldest: dict[tuple[str, str], datetime] = {}  # of what was sampled
        self._is_whole = True  # all messages were read
        self.is_estimate = False

    def messages(self) -> Counts:
        found, self._is_whole = self._sampled("outbox_message", postgres.SAMPLED_MESSAGES)
        return found

    def deliveries(self) -> Counts:
        return self._sampled("outbox_delivery", postgres.SAMPLED_DELIVERIES)[0]

    def oldest_unread(self) -> Iterator[tuple[str, datetime]]:
        is_complete = self._is_whole
        if not is_complete:
            last = self._connection.exec_driver_sql(postgres.LAST_POSITION).scalar_one()
            found, is_complete = self._floors.walk(self._first_ready, last)
            yield from ((row.type, row.since) for row in found)
        if self._is_whole or not is_complete:
            yield from self._sampled_in(State.READY)
        scheduled = self._asked(postgres.OLDEST_SCHEDULED, rows=OLDEST_OF_EACH_SHARD)
        yield from self._sampled_in(State.SCHEDULED) if scheduled is None else ((row[0], row[1]) for row in scheduled)

    def oldest_set_aside(self, destinations: Sequence[str]) -> Iterator[tuple[str, datetime]]:
        for state, statement, parameters in (
            (State.PARKED, postgres.OLDEST_PARKED, {"destinations": list(destinations)}),
            (State.RETRY, postgres.OLDEST_RETRIES, {"rows": NEXT_OF_EACH_SHARD}),
        ):
            rows = self._asked(statement, **parameters)
            yield from self._sampled_in(state) if rows is None else ((row[0], row[1]) for row in rows)

    def dead(self, destinations: Sequence[str], counted: Counts) -> Mapping[str, int]:
        rows = self._asked(postgres.DEAD, destinations=list(destinations), rows=EXACT)
        found = dict.fromkeys(destinations, EXACT) if rows is None else {row[0]: row[1] for row in rows}
        return {name: _larger(count, counted[name, State.DEAD], rows is None) for name, count in found.items()}

    def unrouted(self, counted: Counts) -> int:
        rows = self._asked(postgres.UNROUTED, rows=EXACT)
        return _larger(EXACT if rows is None else rows[0][0], _by_state(counted)[State.UNROUTED], rows is None)

    def _sampled(self, table: str, statement: str) -> tuple[Counts, bool]:
        """Count the rows of some pages, and extrapolate; return also whether these were all pages."""
        pages = self._connection.exec_driver_sql(postgres.PAGES.format(table=table)).scalar_one()
        percent = 100.0 if pages <= PAGES else 100.0 * PAGES / pages
        self.is_estimate = self.is_estimate or percent < 100
        rows = self._connection.execute(sa.text(statement), {"percent": percent}).all()
        self._oldest |= {(row[0], row[1]): row.oldest for row in rows if row.oldest is not None}
        return Counter({(row[0], row[1]): round(row.found * 100 / percent) for row in rows}), percent == 100

    def _sampled_in(self, state: State) -> Iterator[tuple[str, datetime]]:
        """Yield the types, or the destinations, of what was sampled in a state, each with the instant of its oldest."""
        for (one, other), since in self._oldest.items():
            if state in (one, other):
                yield (other if one == state else one), since

    def _first_ready(self, shards: Sequence[int], floors: Sequence[int], span: int) -> Sequence[Any] | None:
        parameters = {"shards": list(shards), "floors": list(floors), "span": span, "rows": OLDEST_OF_EACH_SHARD}
        return self._asked(postgres.OLDEST_READY, **parameters)

    def _asked(self, statement: str, **parameters: Any) -> Sequence[Any] | None:
        """Return the rows of a statement; ``None`` if that takes longer than what is left of the budget."""
        if self._left_ms < 1:
            return None
        began_at = monotonic()
        try:
            with self._connection.begin_nested():
                self._connection.exec_driver_sql(f"SET LOCAL statement_timeout = {self._left_ms:.0f}")
                return self._connection.execute(sa.text(statement), parameters).all()
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != QUERY_CANCELED:
                raise
            self.is_estimate = True
            return None
        finally:
            self._left_ms -= (monotonic() - began_at) * 1000
            self._connection.exec_driver_sql(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")


def _larger(exact: int, estimated: int, is_unknown: bool = False) -> int:
    """Return the exact count, or the estimate where counting stopped."""
    if is_unknown:
        return estimated
    return exact if exact < EXACT else max(exact, estimated)


class _Sqlite:
    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self.is_estimate = False

    def messages(self) -> Counts:
        return self._counts("outbox_message", sqlite.COUNTED_MESSAGES, sqlite.SAMPLED_MESSAGES)

    def deliveries(self) -> Counts:
        return self._counts("outbox_delivery", sqlite.COUNTED_DELIVERIES, sqlite.SAMPLED_DELIVERIES)

    def oldest_unread(self) -> Iterator[tuple[str, datetime]]:
        for statement in (sqlite.OLDEST_READY, sqlite.OLDEST_SCHEDULED):
            yield from self._since(statement, rows=OLDEST_OF_EACH_SHARD * SHARD_COUNT)

    def oldest_set_aside(self, destinations: Sequence[str]) -> Iterator[tuple[str, datetime]]:
        for each in destinations:
            yield from self._since(sqlite.OLDEST_PARKED, destination=each)
        yield from self._since(sqlite.OLDEST_RETRIES, rows=NEXT_OF_EACH_SHARD * SHARD_COUNT)

    def dead(self, destinations: Sequence[str], counted: Counts) -> Mapping[str, int]:
        return {
            name: self._up_to(COUNTED, sqlite.DEAD, counted[name, State.DEAD], destination=name)
            for name in destinations
        }

    def unrouted(self, counted: Counts) -> int:
        return self._up_to(COUNTED, sqlite.UNROUTED, _by_state(counted)[State.UNROUTED])

    def _up_to(self, at_most: int, statement: str, estimated: int, **parameters: Any) -> int:
        found: int = self._connection.execute(sa.text(statement), parameters | {"at_most": at_most}).scalar_one()
        return found if found < at_most else max(found, estimated)

    def _counts(self, table: str, counted: str, sampled: str) -> Counts:
        if self._up_to(COUNTED + 1, sqlite.ROWS.format(table=table), 0) <= COUNTED:
            return Counter({(row[0], row[1]): row.found for row in self._connection.execute(sa.text(counted))})
        self.is_estimate = True
        parameters, scale = sample_of(self._connection, table)
        rows = self._connection.execute(sa.text(sampled), parameters)
        return Counter({(row[0], row[1]): round(row.found * scale) for row in rows})

    def _since(self, statement: str, **parameters: Any) -> Iterator[tuple[str, datetime]]:
        """Yield the rows of a statement: a type or a destination, and the instant of its oldest message."""
        query = sa.text(statement).columns(**SINCE)
        for row in self._connection.execute(query, parameters):
            yield row[0], row[1]
