"""Hundreds of thousands of waiting messages: the relay that drains them stays small, and reads each of them once.

The test stops when it has seen enough of the drain: all of it takes twice as long and shows nothing new.
"""

import pytest
from support.databases import Database
from support.waiting import eventually

from relay.databases.migrations import upgrade

MESSAGES = 250_000
DRAINED = 100_000
GROWTH_BYTES = 45 * 1024**2

FILL = """
INSERT INTO outbox_message (id, type, source, data)
SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'extraction.completed', 'outbox',
       jsonb_build_object('n', n, 'text', repeat('x', 175))
FROM generate_series(1, :count) AS n
"""


@pytest.fixture
def database(private_postgres):
    server = private_postgres({"shared_buffers": "512MB", "max_wal_size": "8GB", "autovacuum": "off"})
    upgrade(server.url())
    database = Database("postgres", server.url())
    yield database
    database.dispose()


@pytest.mark.timeout(300)
def test_however_many_messages_wait_they_need_no_more_memory_and_no_more_reads_than_a_few(database, fleet):
    database.execute(FILL, count=MESSAGES)
    fleet.configure(database.url, destinations={"log": {"listener": "support.recording:ignore"}})
    relay = fleet.start()
    sizes = [relay.rss_bytes]

    def is_drained() -> bool:
        sizes.append(relay.rss_bytes)
        return settled(database) >= DRAINED

    eventually(is_drained, deadline_s=200, what=f"{DRAINED} messages are drained")
    relay.terminate()
    relay.wait()
    drained = database.scalar("SELECT count(*) FROM outbox_history")
    read = eventually(lambda: entries_read(database, at_least=drained), what="the session's reads are counted")
    print(f"at most {max(sizes) / 1024**2:.0f} MB; {read} index entries for {drained} messages")
    assert max(sizes) - sizes[0] < GROWTH_BYTES
    # Read once by the owner, and at most once by the samples of the backlog, which pass over settled rows.
    assert read < 2 * drained


def settled(database) -> int:
    """Return roughly how many are settled, from the server's statistics, at no cost."""
    return database.scalar(
        "SELECT coalesce(sum(n_tup_ins), 0) FROM pg_stat_user_tables WHERE relname LIKE 'outbox_history_%'"
    )


def entries_read(database, *, at_least: int) -> int:
    read = database.scalar("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'outbox_message_ready'")
    return read if read >= at_least else 0
