"""`strict_order`: messages of one key get their positions in the order of the commits."""

import threading

import pytest
from sqlalchemy.orm import Session
from support.waiting import eventually

from outbox import Draft, emit, emit_many


@pytest.fixture
def second_thread():
    """Runs work beside the test, and fails the test if the work fails."""
    threads, failures = [], []

    def start(work):
        def run():
            try:
                work()
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=run, daemon=True)
        threads.append(thread)
        thread.start()
        return thread

    yield start
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert failures == []


def waiting_for_a_lock(database):
    return database.scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND query LIKE '%outbox_take_turn%'"
    )


def stored(database):
    return [row.n for row in database.rows("SELECT data->>'n' AS n FROM outbox_message ORDER BY position")]


@pytest.mark.parametrize("way", ["session", "session many", "connection"])
def test_a_second_emitter_waits_for_the_first_to_commit(postgres_database, second_thread, way):
    def emit_second():
        if way == "connection":
            with postgres_database.engine.begin() as connection:
                emit(connection, "page.n", {"n": "second"}, ordering_key="k", strict_order=True)
            return
        with Session(postgres_database.engine) as session, session.begin():
            draft = Draft("page.n", {"n": "second"}, ordering_key="k", strict_order=True)
            emit_many(session, [draft, draft] if way == "session many" else [draft])

    with Session(postgres_database.engine) as session, session.begin():
        emit(session, "page.n", {"n": "first"}, ordering_key="k", strict_order=True)
        session.flush()
        thread = second_thread(emit_second)
        eventually(lambda: waiting_for_a_lock(postgres_database))
        emit(session, "page.n", {"n": "first"}, ordering_key="k", strict_order=True)
    thread.join(30)
    assert stored(postgres_database)[:3] == ["first", "first", "second"]


def test_a_waiting_emitter_goes_on_when_the_first_rolls_back(postgres_database, second_thread):
    def emit_second():
        with Session(postgres_database.engine) as session, session.begin():
            emit(session, "page.n", {"n": "second"}, ordering_key="k", strict_order=True)

    with Session(postgres_database.engine) as session:
        emit(session, "page.n", {"n": "first"}, ordering_key="k", strict_order=True)
        session.flush()
        thread = second_thread(emit_second)
        eventually(lambda: waiting_for_a_lock(postgres_database))
        session.rollback()
    thread.join(30)
    assert stored(postgres_database) == ["second"]


def test_a_key_whose_row_is_gone_is_held_all_the_same(postgres_database, second_thread):
    postgres_database.execute("DELETE FROM outbox_turn")
    test_a_waiting_emitter_goes_on_when_the_first_rolls_back(postgres_database, second_thread)


def test_several_keys_are_taken_in_one_order_so_that_two_calls_never_wait_for_each_other(
    postgres_database, second_thread
):
    slots = "SELECT key FROM unnest('{a,b}'::text[]) AS key ORDER BY hashtextextended(key, 0) & 1023"
    low, high = (row.key for row in postgres_database.rows(slots))

    def emit_both():
        with Session(postgres_database.engine) as session, session.begin():
            drafts = [Draft("page.n", {"n": key}, ordering_key=key, strict_order=True) for key in (high, low)]
            emit_many(session, drafts)

    with Session(postgres_database.engine) as holder, holder.begin():
        emit(holder, "page.n", {"n": "first"}, ordering_key=low, strict_order=True)
        holder.flush()
        thread = second_thread(emit_both)
        eventually(lambda: waiting_for_a_lock(postgres_database))
        emit(holder, "page.n", {"n": "second"}, ordering_key=high, strict_order=True)
        holder.flush()  # a deadlock, if the other thread held this key
    thread.join(30)
    assert stored(postgres_database) == ["first", "second", high, low]


def test_other_keys_and_unordered_messages_do_not_wait(postgres_database):
    with Session(postgres_database.engine) as holder, holder.begin():
        emit(holder, "page.n", {"n": "first"}, ordering_key="k", strict_order=True)
        holder.flush()
        with Session(postgres_database.engine) as session, session.begin():
            emit(session, "page.n", {"n": "other"}, ordering_key="other", strict_order=True)
            emit(session, "page.n", {"n": "unordered"})
            emit(session, "page.n", {"n": "not strict"}, ordering_key="k")
    assert len(stored(postgres_database)) == 4


def test_on_sqlite_writers_take_turns_anyway(sqlite_database):
    with Session(sqlite_database.engine) as session, session.begin():
        emit(session, "page.n", {"n": "first"}, ordering_key="k", strict_order=True)
        emit(session, "page.n", {"n": "second"}, ordering_key="k", strict_order=True)
    assert sqlite_database.scalar("SELECT count(*) FROM outbox_message") == 2
