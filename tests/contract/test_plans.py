"""Each of the relay's statements uses its one index, for any statistics of the table.

Plans are generic, as in a relay's session, and made when the planner believes the table to be empty: the worst result
of ANALYZE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import pytest
from support.databases import Database
from support.desk import take
from support.plans import STATEMENTS

from relay.databases.database import Database as Target
from relay.databases.postgresql.store.session import PostgresSession, PostgresStore
from relay.databases.store.rows import Cursors

REGISTERED = "outbox_destination_generation"
INDEXES = {
    "READ_READY": [REGISTERED, "outbox_message_ready"],
    "READ_LATE": [REGISTERED, "outbox_message_txid"],
    "LATE_FLOOR": ["outbox_message_txid"],
    "LATE_DELIVERIES": ["outbox_delivery_txid"],
    "LOOK": ["outbox_message_txid", "outbox_delivery_txid"],
    "LOOK_AND_READ": [REGISTERED, "outbox_message_txid", "outbox_delivery_txid", "outbox_message_ready"],
    "LOOK_AND_READ_SMALL": [REGISTERED, "outbox_message_txid", "outbox_delivery_txid", "outbox_message_ready"],
    "READ_PARKED": ["outbox_delivery_parked", "outbox_message_pkey"],
    "READ_SCHEDULED": [REGISTERED, "outbox_message_due"],
    "READ_RETRIES": ["outbox_delivery_retry", "outbox_message_pkey"],
    "HELD_KEYS": ["outbox_delivery_key"],
    "BLOCKED_KEYS": ["outbox_delivery_key"],
    "SETTLE_PLAIN": [],
    "SETTLE_PLAIN_KEEPING_NONE": [],
    "SETTLE_MOVED": ["outbox_message_pkey"],
    "SETTLE_MOVED_KEEPING_NONE": ["outbox_message_pkey"],
    "WRITE_RULED": ["outbox_message_pkey"],
    "WRITE_UNKNOWN": ["outbox_message_pkey"],
    "FINISH": ["outbox_delivery_pkey", "outbox_message_pkey"],
    "KEYS_OF": ["outbox_delivery_pkey", "outbox_shard_pkey"],
    "MARK_UNROUTED": [REGISTERED, "outbox_message_pkey"],
    "PRESENT": ["outbox_message_pkey"],
}


@pytest.fixture
def session(postgres_database: Database) -> Iterator[PostgresSession]:
    """A relay's session, on tables that were full, are empty now, and have just been analysed."""
    _fill(postgres_database, 5_000)
    for statement in ("DELETE FROM outbox_message", "ANALYZE outbox_message", "ANALYZE outbox_delivery"):
        postgres_database.execute(statement)
    with closing(_open(postgres_database)) as session:
        yield session


def _open(database: Database) -> PostgresSession:
    return PostgresStore(Target.parse(database.url), lease_s=15, keep_history=True, notify=True).open("plans")


def _fill(database: Database, count: int) -> None:
    database.execute(
        "INSERT INTO outbox_message (id, type, source, data) "
        f"SELECT outbox_uuid7(), 'x.y', 'outbox', '{{}}' FROM generate_series(1, {count})"
    )


def _plan(session: PostgresSession, statement: str) -> list[str]:
    numbers: dict[str, str] = {}
    numbered = re.sub(r"%\((\w+)\)s", lambda m: numbers.setdefault(m[1], f"${len(numbers) + 1}"), statement)
    connection = session.connection.bare
    connection.execute("PREPARE looked_at AS " + numbered.replace("%%", "%"))
    try:
        arguments = ", ".join(["NULL"] * len(numbers))
        return [row[0] for row in connection.execute(f"EXPLAIN EXECUTE looked_at ({arguments})")]
    finally:
        connection.execute("DEALLOCATE looked_at")


@pytest.mark.parametrize("name", INDEXES)
def test_a_statement_rides_on_its_index_even_when_the_table_is_believed_to_be_empty(
    session: PostgresSession, name: str
) -> None:
    plan = _plan(session, STATEMENTS[name])
    scans = [index for index, line in enumerate(plan) if re.search(r"Index (Only )?Scan|Seq Scan", line)]
    used = {match[1] for line in plan if (match := re.search(r"Scan using (\w+) on", line))}
    assert used == set(INDEXES[name]), plan
    for index in scans:  # each is entered by a condition: none is read from one end to the other
        assert "Index Cond" in plan[index + 1], plan


def test_a_drained_page_costs_a_handful_of_statements_however_many_messages_it_has(
    postgres_database: Database,
) -> None:
    _fill(postgres_database, 1_000)
    with closing(_open(postgres_database)) as session:
        cursors = Cursors()
        cursors.ready = dict.fromkeys(take(session, range(64)), 0)
        statements = 0
        run = session.connection.run

        def counting(statement: str, **parameters: object) -> object:
            nonlocal statements
            statements += 1
            return run(statement, **parameters)

        session.connection.run = counting  # type: ignore[method-assign, assignment]
        settled = 0
        while page := session.reading.read_ready(cursors, 1_000):
            settled += session.settling.settle_plain(page.messages)()
    assert settled == 1_000
    assert statements <= 40
