"""Transactions that stay open for long: their late commits are delivered at once, and they do not slow down others."""

import time

import psycopg
import pytest
from sqlalchemy import text
from support.fleet import shard_counts
from support.waiting import eventually

from outbox import emit, emit_many

ROUNDS, ROUND = 20, 500


def commit(database, count: int, first: int = 0) -> None:
    with database.engine.begin() as connection:
        emit_many(connection, [("extraction.completed", {"n": first + n}) for n in range(count)])


def await_sent(fleet, numbers: set[int], *, deadline_s: float = 30) -> None:
    eventually(lambda: {send.n for send in fleet.sends()} == numbers, deadline_s=deadline_s, what="all of it is sent")


@pytest.mark.parametrize("quiet_s", [60, 0], ids=["awake", "asleep"])
def test_a_lower_position_that_commits_late_is_delivered_at_once(postgres_database, fleet, quiet_s):
    fleet.configure(postgres_database.url, quiet_s=quiet_s, slow_poll_s=60)
    fleet.start()
    engine = postgres_database.engine
    with engine.connect() as slow, engine.connect() as slower, engine.connect() as undecided:
        for number, connection in enumerate([slow, slower, undecided], start=9001):
            emit(connection, "extraction.completed", {"n": number})
        commit(postgres_database, 1000)
        await_sent(fleet, set(range(1000)))
        commit(postgres_database, 1000, first=1000)
        await_sent(fleet, set(range(2000)))
        slow.commit()
        committed_at = time.monotonic()
        await_sent(fleet, {*range(2000), 9001})
        print(f"sent {(fleet.sends()[-1].at_s - committed_at) * 1000:.1f} ms after its commit")
        commit(postgres_database, 10, first=2000)
        await_sent(fleet, {*range(2010), 9001})
        undecided.rollback()
        slower.commit()
        await_sent(fleet, {*range(2010), 9001, 9002})
    assert len(fleet.sends()) == 2012


def test_an_open_transaction_makes_no_read_touch_what_was_settled(postgres_database, fleet):
    """It keeps every settled row in the indexes; a read from the left edge would pass all of them every time."""
    fleet.configure(postgres_database.url, quiet_s=60)
    relay = fleet.start()
    eventually(lambda: shard_counts(postgres_database.url)[relay.pid] == 64)
    with psycopg.connect(postgres_database.url) as holder:
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holder.execute("SELECT count(*) FROM outbox_message")
        for number in range(ROUNDS):
            commit(postgres_database, ROUND, first=number * ROUND)
            await_sent(fleet, set(range((number + 1) * ROUND)))
        eventually(lambda: postgres_database.scalar("SELECT count(*) FROM outbox_message") == 0)
        relay.terminate()  # then the server counts all that its session did
        relay.wait()
        read = eventually(lambda: entries_read(postgres_database), what="the session's reads are counted")
    print(f"{read} of {ROUNDS * ROUND} messages")
    assert read["outbox_message_ready"] < 10 * ROUNDS * ROUND  # from the left edge it is a hundred times as many
    assert read["outbox_message_txid"] < 10 * ROUNDS * ROUND


def entries_read(database) -> dict[str, int] | None:
    """Return index → entries that its scans returned, once that is at least the number of messages."""
    with database.engine.begin() as connection:
        rows = connection.execute(
            text("SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE relname = 'outbox_message'")
        )
        read = {row.indexrelname: row.idx_tup_read for row in rows}
    return read if read["outbox_message_ready"] >= ROUNDS * ROUND else None
