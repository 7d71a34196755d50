"""Ready messages are read once: page by page, in order, even if they were committed late."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, text
from support.desk import ALL, Desk, everything, ids, read_all, ruling, settle, taken

from outbox import emit
from relay.databases.postgresql.store import reading
from relay.databases.store.rows import PAGE_BYTES, Cursors, Page


def test_what_is_ready_is_read_once_in_the_order_of_positions(desk: Desk) -> None:
    sent = desk.emit(5, ordering_key="k")
    session, cursors = desk.owner(), everything()
    assert ids(session.reading.read_ready(cursors, 10).messages) == sent
    assert not session.reading.read_ready(cursors, 10)
    later = desk.emit(2, ordering_key="k")
    assert ids(session.reading.read_ready(cursors, 10).messages) == later


def test_a_row_holds_what_a_message_is_made_of(desk: Desk) -> None:
    with desk.database.engine.begin() as connection:
        sent = emit(connection, "page.read", {"ü": [1, None]}, ordering_key="k", subject="s", headers={"tenant": "t"})
    session = desk.owner()
    (row,) = session.reading.read_ready(everything(), 10).messages
    assert row[0] == sent
    assert row[1:4] == (desk.position(sent), row[2], 0)
    assert row[4:8] == ("page.read", "outbox", "s", "k")
    assert (json.loads(row[8]), json.loads(row[9])["tenant"]) == ({"ü": [1, None]}, "t")
    age = datetime.now(UTC) - datetime.fromisoformat(row[10] + ("" if desk.kind == "postgres" else "+00"))
    assert abs(age) < timedelta(minutes=1)


@pytest.mark.parametrize("limit", [1, 7, 40])
def test_page_after_page_reads_everything_once_and_no_page_is_larger_than_asked_for(desk: Desk, limit: int) -> None:
    sent = [*desk.emit(25), *desk.emit(15, ordering_key="hot")]
    pages = read_all(desk.owner(), everything(), limit)
    assert sorted(ids([row for page in pages for row in page])) == sorted(sent)
    assert max(len(page) for page in pages) <= limit
    hot = [row[0] for page in pages for row in page if row[7] == "hot"]
    assert hot == sent[25:]


def test_a_backlog_of_one_key_is_read_in_few_pages(desk: Desk) -> None:
    sent = desk.emit(300, ordering_key="hot")
    pages = read_all(desk.owner(), everything(), 100)
    assert [row[0] for page in pages for row in page] == sent
    assert len([page for page in pages if page]) <= 5


def test_a_page_is_bounded_in_bytes_and_nothing_is_left_out(desk: Desk) -> None:
    body = {"text": "x" * 200_000}
    with desk.database.engine.begin() as connection:
        sent = [emit(connection, "page.read", body) for _ in range(14)]
    pages = read_all(desk.owner(), everything(), 100)
    assert sorted(ids([row for page in pages for row in page])) == sorted(sent)
    assert all(sum(len(row[8]) for row in page[:-1]) < PAGE_BYTES for page in pages)
    assert len(pages) >= 3


@pytest.mark.parametrize("key", [None, "hot"])
def test_large_messages_among_small_ones_keep_the_bound_and_their_place(desk: Desk, key: str | None) -> None:
    session, cursors = desk.owner(), everything()
    desk.emit(70)
    read_all(session, cursors, 100)  # from here on the messages are expected to be small
    with desk.database.engine.begin() as connection:
        bodies = [{"text": "x" * (200_000 if n % 10 == 9 else n)} for n in range(100)]
        sent = [emit(connection, "page.read", body, ordering_key=key) for body in bodies]
    pages = read_all(session, cursors, 100)
    found = ids([row for page in pages for row in page])
    assert (found if key else sorted(found)) == (sent if key else sorted(sent))
    assert all(len(row[8]) > 10 for page in pages for row in page)
    assert all(sum(len(row[8]) for row in page[:-1]) < PAGE_BYTES for page in pages)


def test_shards_that_are_slow_to_begin_with_are_begun_one_at_a_time(pg: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Millions of settled rows may lie in their index; meanwhile the shards that have begun are read."""
    monkeypatch.setattr(reading, "QUICK_S", 0.0)
    sent, session, cursors = pg.emit(300), pg.owner(), everything()
    found: list[str] = []
    for begun in range(1, 65):
        page = session.reading.read_ready(cursors, 1000)
        found += ids(page.messages)
        assert page.full or begun == 64
        assert sum(not cursors.is_new(shard) for shard in ALL) == begun
    assert session.reading.read_ready(cursors, 0) == Page()
    assert sorted(found) == sorted(sent)


def test_a_message_larger_than_a_page_is_read_all_the_same(desk: Desk) -> None:
    """Our workers do not write such a message, but SQL may."""
    for n in range(3):
        desk.database.execute(
            "INSERT INTO outbox_message (id, type, source, data) VALUES (:id, 'page.read', 'sql', :data)",
            id=f"0197c0de-0000-7000-8000-00000000000{n}",
            data=json.dumps({"text": "x" * 2_500_000}),
        )
    pages = read_all(desk.owner(), everything(), 100)
    assert [len(page) for page in pages] == [1, 1, 1]


def test_only_the_shards_that_are_asked_for_are_read(pg: Desk) -> None:
    pg.emit(200)
    session, cursors = pg.owner(), Cursors({3: 0, 9: 0})
    found = [row for page in read_all(session, cursors, 10) for row in page]
    expected = pg.database.rows("SELECT id FROM outbox_message WHERE shard IN (3, 9)")
    assert sorted(ids(found)) == sorted(str(r.id) for r in expected)


@pytest.mark.parametrize("limit", [0, 5])
def test_what_commits_late_below_the_cursor_is_read_at_the_next_look(pg: Desk, limit: int) -> None:
    session, cursors = pg.owner(), everything()
    with pg.database.engine.connect() as slow:
        late = emit(slow, "page.read", {}, ordering_key="k")
        (early,) = pg.emit(1, ordering_key="k")
        assert ids(session.reading.read_ready(cursors, 5).messages) == [early]
        assert not session.reading.read_ready(cursors, 5)
        slow.commit()
    assert ids(session.reading.read_ready(cursors, limit).messages) == [late]
    assert not session.reading.read_ready(cursors, 5)


def test_what_was_under_way_when_a_session_began_is_read_in_a_shard_that_had_nothing(pg: Desk) -> None:
    """The session skips rows that earlier owners may have left; a message that commits below that comes late."""
    with pg.database.engine.connect() as slow:
        late = emit(slow, "page.read", {}, ordering_key="k")
        (early,) = pg.emit(1, ordering_key="elsewhere")
        session, cursors = pg.owner(), everything()
        assert ids(session.reading.read_ready(cursors, 5).messages) == [early]
        assert not session.reading.read_ready(cursors, 5)
        assert min(cursors.ready.values()) == pg.position(early)
        slow.commit()
    assert ids(session.reading.read_ready(cursors, 5).messages) == [late]
    assert not session.reading.read_ready(cursors, 5)
    (later,) = pg.emit(1, ordering_key="k")
    assert ids(session.reading.read_ready(cursors, 5).messages) == [later]


def test_what_began_after_the_last_look_and_commits_below_the_cursor_is_read(pg: Desk) -> None:
    """Its position was drawn before the poll, its transaction id after the snapshot of the cursor."""
    session, cursors = pg.owner(), everything()
    with pg.database.engine.connect() as slow, pg.database.engine.connect() as slower:
        emit(slow, "page.read", {}, ordering_key="k")
        session.reading.read_ready(cursors, 5)
        second = emit(slower, "page.read", {}, ordering_key="k")
        (last,) = pg.emit(1, ordering_key="k")
        assert ids(session.reading.read_ready(cursors, 5).messages) == [last]
        slower.commit()
        assert ids(session.reading.read_ready(cursors, 5).messages) == [second]
        slow.rollback()
    assert not session.reading.read_ready(cursors, 5)


def test_what_is_rolled_back_is_never_read(desk: Desk) -> None:
    session, cursors = desk.owner(), everything()
    with desk.database.engine.connect() as connection:
        emit(connection, "page.read", {})
        connection.rollback()
    assert not session.reading.read_ready(cursors, 5)
    assert not session.reading.read_ready(cursors, 5)


def test_more_late_commits_than_a_page_holds_are_all_read(pg: Desk) -> None:
    session, cursors = pg.owner(), everything()
    with pg.database.engine.connect() as slow:
        slow.execute(
            text(
                "INSERT INTO outbox_message (id, type, source, data) "
                "SELECT gen_random_uuid(), 'page.read', 'sql', '{}' FROM generate_series(1, 2500)"
            )
        )
        pg.emit(200)
        read_all(session, cursors)
        slow.commit()
    found = {row[0] for page in read_all(session, cursors, 400) for row in page}
    assert len(found) >= 2500
    rows = pg.database.rows("SELECT id FROM outbox_message WHERE source = 'sql'")
    assert {str(row.id) for row in rows} <= found


@pytest.mark.parametrize("late_limit", [1000, 5], ids=["all on a page", "more than a page"])
def test_what_comes_late_is_read_in_its_order_wherever_it_lies(
    pg: Desk, monkeypatch: pytest.MonkeyPatch, late_limit: int
) -> None:
    """Settled rows leave room, so a later row may lie before an earlier one."""
    monkeypatch.setattr(reading, "LATE_LIMIT", late_limit)
    session, cursors = pg.owner(), everything()
    with pg.database.engine.connect() as slow:
        _write_backwards(slow, 9)
        pg.emit(1, ordering_key="k")
        assert len(session.reading.read_ready(cursors, 5).messages) == 1
        slow.commit()
    found = [row[6] for page in read_all(session, cursors) for row in page if row[6]]
    assert found == [str(n) for n in range(1, 10)]


def _write_backwards(connection: Connection, count: int) -> None:
    """Insert messages of one key, numbered by their positions, that lie in the table in reverse order."""
    first = int(
        connection.scalar(text("SELECT max(nextval('outbox_message_position_seq')) FROM generate_series(1, 20)"))
    )
    for n in range(count, 0, -1):
        connection.execute(
            text(
                "INSERT INTO outbox_message (id, position, type, source, ordering_key, subject, data) "
                "OVERRIDING SYSTEM VALUE VALUES (gen_random_uuid(), :position, 'page.read', 'sql', 'k', :n, '{}')"
            ),
            {"position": first - 20 + n, "n": str(n)},
        )


def test_a_session_that_has_not_looked_yet_misses_nothing_that_is_open(pg: Desk) -> None:
    with pg.database.engine.connect() as slow:
        late = emit(slow, "page.read", {}, ordering_key="k")
        early = pg.emit_one(ordering_key="k")
        session, cursors = pg.owner(), everything()
        assert ids(session.reading.read_ready(cursors, 5).messages) == [early]
        slow.commit()
    assert ids(session.reading.read_ready(cursors, 5).messages) == [late]


def test_what_becomes_ready_again_below_the_cursor_is_read(desk: Desk) -> None:
    sent = desk.emit(3, ordering_key="k")
    session, cursors = desk.owner(), everything()
    read_all(session, cursors)
    session.settling.mark_unrouted([(sent[0], 0)])
    assert not session.reading.read_ready(cursors, 5)
    desk.put_back(sent[0])
    assert ids(session.reading.read_ready(cursors, 5).messages) == [sent[0]]
    assert not session.reading.read_ready(cursors, 5)


def test_settled_and_set_aside_messages_are_not_read_by_the_next_session(desk: Desk) -> None:
    done, held, unrouted, ready = desk.emit(4, ordering_key="k")
    session = desk.owner()
    session.settling.settle_plain(taken(done))()
    settle(session, ruling(held, "a", "dead"))
    session.settling.mark_unrouted([(unrouted, 0)])
    session.close()
    assert ids(desk.owner("relay-2").reading.read_ready(everything(), 10).messages) == [ready]


def test_what_a_dump_brought_from_a_cluster_that_had_come_further_is_read_once(pg: Desk) -> None:
    """Its transaction ids are weeks ahead of this cluster's: it would come late at every poll."""
    sent = pg.emit(3)
    with pg.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE outbox_message DISABLE TRIGGER ALL")
        connection.exec_driver_sql("UPDATE outbox_message SET txid = '1000000000000'")
        connection.exec_driver_sql("ALTER TABLE outbox_message ENABLE TRIGGER ALL")
    session, cursors = pg.owner(), everything()
    found = [each for _ in range(4) for each in ids(session.reading.read_ready(cursors, 100).messages)]
    assert sorted(found) == sorted(sent)
