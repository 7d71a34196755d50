"""A million settled rows that vacuum cannot remove: a relay that starts gets past them."""

import psycopg
import pytest
from support.databases import Database
from support.waiting import eventually

from outbox import emit
from relay.databases.migrations import upgrade

SETTLED = 1_000_000
LEASE_S = 1  # no statement may take longer; one that passes all of these rows at once takes two or three seconds


@pytest.fixture
def database(private_postgres):
    server = private_postgres({"max_wal_size": "8GB", "autovacuum": "off"})
    upgrade(server.url())
    database = Database("postgres", server.url())
    yield database
    database.dispose()


def test_a_relay_begins_past_a_million_settled_rows_that_a_transaction_keeps(database, fleet):
    database.execute(
        "INSERT INTO outbox_message (id, type, source, data) "
        "SELECT lpad(to_hex(n), 32, '0')::uuid, 'extraction.completed', 'outbox', jsonb_build_object('n', n) "
        "FROM generate_series(1, :count) AS n",
        count=SETTLED,
    )
    with psycopg.connect(database.url) as holder:
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holder.execute("SELECT FROM outbox_message LIMIT 1")
        database.execute("DELETE FROM outbox_message")
        with database.engine.begin() as connection:
            for number in range(100):
                emit(connection, "extraction.completed", {"n": number}, ordering_key=f"k-{number}")
        fleet.configure(database.url, lease_s=LEASE_S, beat_s=0.2)
        relay = fleet.start()
        eventually(lambda: len(fleet.sends()) == 100, deadline_s=100, what="everything is sent")
    # A session that passes all rows in one statement is always lost; others only while the machine stands still.
    assert relay.output.count("database_lost") <= 2
