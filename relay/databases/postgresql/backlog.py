"""Read the backlog at a bounded cost: a sample of pages, and the oldest rows by index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from time import monotonic
from typing import Any

import sqlalchemy as sa

from relay.databases.postgresql.sql import backlog as sql
from relay.databases.postgresql.sql.connection import BY_INDEX
from relay.databases.store.backlog import BacklogReader, Counts, Walk
from relay.decide.verdict import State

PAGES = 256  # the number of pages that are read of a table for a sample: 2 MiB
EXACT = 1_000  # up to this count, a destination's dead letters, and unrouted messages, are counted exactly
OLDEST_OF_EACH_SHARD = 8  # how many ready messages of a shard are read to find the oldest of each destination
NEXT_OF_EACH_SHARD = 16
LEAST_MS = 20  # a statement's timeout also holds for the rollback after it, which must not be cancelled
TIMEOUT_MS = 1_000
BUDGET_MS = 60  # for all reads of indexes, which may hold any number of settled rows; after that, estimates suffice
QUERY_CANCELED = "57014"


class Backlog(BacklogReader):
    """Samples pages of the tables, and reads the oldest rows from indexes while there is time."""

    def __init__(self, connection: sa.Connection, walk: Walk) -> None:
        super().__init__(connection, exact=EXACT)
        connection.exec_driver_sql(BY_INDEX)
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
        self._walk = walk
        self._left_ms = float(BUDGET_MS)
        self._oldest: dict[tuple[str, str], datetime] = {}  # from the sample
        self._is_whole = True  # whether all messages were read

    def messages(self) -> Counts:
        found, self._is_whole = self._sampled("outbox_message", sql.SAMPLED_MESSAGES)
        return found

    def deliveries(self) -> Counts:
        return self._sampled("outbox_delivery", sql.SAMPLED_DELIVERIES)[0]

    def oldest_unread(self) -> Iterator[tuple[str, datetime]]:
        is_complete = self._is_whole
        if not is_complete:
            last = self._connection.exec_driver_sql(sql.LAST_POSITION).scalar_one()
            found, is_complete = self._walk(self._first_ready, last)
            yield from ((row.type, row.since) for row in found)
        if self._is_whole or not is_complete:
            yield from self._sampled_in(State.READY)
        scheduled = self._asked(sql.OLDEST_SCHEDULED, rows=OLDEST_OF_EACH_SHARD)
        yield from self._sampled_in(State.SCHEDULED) if scheduled is None else ((row[0], row[1]) for row in scheduled)

    def oldest_set_aside(self, destinations: Sequence[str]) -> Iterator[tuple[str, datetime]]:
        for state, statement, parameters in (
            (State.PARKED, sql.OLDEST_PARKED, {"destinations": list(destinations)}),
            (State.RETRY, sql.OLDEST_RETRIES, {"rows": NEXT_OF_EACH_SHARD}),
        ):
            rows = self._asked(statement, **parameters)
            yield from self._sampled_in(state) if rows is None else ((row[0], row[1]) for row in rows)

    def _sampled(self, table: str, statement: str) -> tuple[Counts, bool]:
        """Count the rows of some pages, and extrapolate; also return whether these were all pages."""
        pages = self._connection.exec_driver_sql(sql.PAGES.format(table=table)).scalar_one()
        percent = 100.0 if pages <= PAGES else 100.0 * PAGES / pages
        self.is_estimate = self.is_estimate or percent < 100
        rows = self._connection.execute(sa.text(statement), {"percent": percent}).all()
        self._oldest |= {(row[0], row[1]): row.oldest for row in rows if row.oldest is not None}
        return Counter({(row[0], row[1]): round(row.found * 100 / percent) for row in rows}), percent == 100

    def _sampled_in(self, state: State) -> Iterator[tuple[str, datetime]]:
        """Yield the types, or destinations, that the sample has in a state, each with the instant of its oldest row."""
        for (one, other), since in self._oldest.items():
            if state in (one, other):
                yield (other if one == state else one), since

    def _first_ready(self, shards: Sequence[int], floors: Sequence[int], span: int) -> Sequence[Any] | None:
        parameters = {"shards": list(shards), "floors": list(floors), "span": span, "rows": OLDEST_OF_EACH_SHARD}
        return self._asked(sql.OLDEST_READY, **parameters)

    def _asked(self, statement: str, **parameters: Any) -> Sequence[Any] | None:
        """Return the rows of a statement; ``None`` if it takes longer than the rest of the budget."""
        if self._left_ms < LEAST_MS:
            return None
        began_at = monotonic()
        try:
            with self._connection.begin_nested():  # after its rollback, the earlier timeout holds
                self._connection.exec_driver_sql(f"SET LOCAL statement_timeout = {self._left_ms:.0f}")
                rows = self._connection.execute(sa.text(statement), parameters).all()
                # In the savepoint: the end of the statement's time may cancel the next statement instead.
                self._connection.exec_driver_sql(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
                return rows
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != QUERY_CANCELED:
                raise
            self.is_estimate = True
            return None
        finally:
            self._left_ms -= (monotonic() - began_at) * 1000
