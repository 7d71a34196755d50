"""A message that a session has accepted is written with its commit, or the commit fails, for any use of its objects."""

import gc
from contextlib import suppress

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from support.results import Result, types

from outbox import NoTransaction, emit, emit_many

INSERT = sa.insert(Result.__table__).values(name="r")


def names(database):
    return [row.name for row in database.rows("SELECT name FROM results ORDER BY name")]


def expunge_all(session):
    session.expunge_all()


def expunge_each(session):
    for each in list(session):
        session.expunge(each)


def expunge_the_new(session):
    for each in session.new:
        session.expunge(each)


def clear_what_is_kept_for_hosts(session):
    session.info.clear()
    session.expunge_all()


FORGETTING = pytest.mark.parametrize(
    "forget", [expunge_all, expunge_each, expunge_the_new, clear_what_is_kept_for_hosts]
)


@FORGETTING
def test_what_was_accepted_is_written_though_the_session_forgot_its_objects(results, forget):
    with Session(results.engine) as session:
        session.execute(INSERT)
        emit(session, "page.first", {})
        emit_many(session, [("page.second", {}), ("page.third", {})])
        forget(session)
        emit(session, "page.fourth", {})
        forget(session)
        session.commit()
    assert names(results) == ["r"]
    assert types(results) == ["page.first", "page.second", "page.third", "page.fourth"]


@FORGETTING
def test_a_session_that_holds_nothing_else_writes_it_too(results, forget):
    with Session(results.engine) as session, session.begin():
        emit(session, "page.read", {})
        forget(session)
    assert types(results) == ["page.read"]


@FORGETTING
async def test_an_async_session_writes_it_too(results, forget):
    async with AsyncSession(results.async_engine()) as session, session.begin():
        await session.execute(INSERT)
        emit(session, "page.read", {})
        await session.run_sync(forget)
    assert (names(results), types(results)) == (["r"], ["page.read"])


def test_a_scoped_session_writes_it_too(results):
    sessions = scoped_session(sessionmaker(results.engine))
    emit(sessions, "page.read", {})
    sessions.expunge_all()
    sessions.commit()
    sessions.remove()
    assert types(results) == ["page.read"]


@FORGETTING
def test_a_rollback_drops_what_the_session_forgot(results, forget):
    with Session(results.engine) as session:
        session.execute(INSERT)
        emit(session, "page.lost", {})
        forget(session)
        session.rollback()
        emit(session, "page.kept", {})
        forget(session)
        session.commit()
        emit(session, "page.lost", {})
        forget(session)
    assert (names(results), types(results)) == ([], ["page.kept"])


@FORGETTING
def test_savepoints_keep_and_drop_what_is_theirs(results, forget):
    with Session(results.engine) as session, session.begin():
        emit(session, "page.before", {})
        forget(session)
        inner = session.begin_nested()
        emit(session, "page.lost", {})
        forget(session)
        inner.rollback()
        with session.begin_nested():
            emit(session, "page.kept", {})
            forget(session)
        emit(session, "page.after", {})
        forget(session)
    assert types(results) == ["page.before", "page.kept", "page.after"]


async def test_savepoints_of_an_async_session_keep_and_drop_what_is_theirs(results):
    async with AsyncSession(results.async_engine()) as session, session.begin():
        emit(session, "page.before", {})
        session.expunge_all()
        inner = await session.begin_nested()
        emit(session, "page.lost", {})
        session.expunge_all()
        await inner.rollback()
        emit(session, "page.after", {})
    assert types(results) == ["page.before", "page.after"]


@pytest.mark.parametrize("forgets", [False, True], ids=["kept", "forgotten"])
def test_a_commit_of_the_connection_writes_it_too(results, forgets):
    with Session(results.engine) as session:
        session.execute(INSERT)
        emit(session, "page.read", {})
        if forgets:
            session.expunge_all()
        session.connection().commit()
    assert (names(results), types(results)) == (["r"], ["page.read"])


def test_a_commit_of_a_connection_that_the_session_begins_on_later_writes_it_too(results):
    with Session(results.engine) as session:
        emit(session, "page.read", {})
        session.execute(INSERT)
        session.connection().commit()
    assert (names(results), types(results)) == (["r"], ["page.read"])


async def test_a_commit_of_an_async_connection_writes_it_too(results):
    async with AsyncSession(results.async_engine()) as session:
        await session.execute(INSERT)
        emit(session, "page.read", {})
        await (await session.connection()).commit()
    assert (names(results), types(results)) == (["r"], ["page.read"])


def test_a_rollback_of_the_connection_leaves_no_ghost(results):
    with Session(results.engine) as session:
        session.execute(INSERT)
        emit(session, "page.ghost", {})
        session.connection().rollback()
        with suppress(sa.exc.InvalidRequestError):
            session.commit()
    assert (names(results), types(results)) == ([], [])


def test_what_was_executed_in_a_transaction_that_the_session_only_joined_keeps_its_message(results):
    """The session ends without a commit, and the host commits the connection: the result is stored."""
    with results.engine.begin() as connection, Session(connection) as session:
        session.execute(INSERT)
        emit(session, "page.read", {})
    assert (names(results), types(results)) == (["r"], ["page.read"])


@pytest.mark.parametrize("mode", ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"])
def test_a_joined_transaction_that_is_undone_takes_its_message_with_it(results, mode):
    with results.engine.connect() as connection:
        connection.begin()
        with Session(connection, join_transaction_mode=mode) as session:
            session.execute(INSERT)
            emit(session, "page.lost", {})
            session.rollback()
        connection.commit()
    assert (names(results), types(results)) == ([], [])


def test_a_session_that_made_a_savepoint_and_ended_without_a_commit_has_undone_both(results):
    with results.engine.begin() as connection, Session(connection, join_transaction_mode="create_savepoint") as session:
        session.execute(INSERT)
        emit(session, "page.lost", {})
    assert (names(results), types(results)) == ([], [])


def test_a_session_that_is_gone_leaves_nothing_behind(results):
    with results.engine.connect() as connection:
        session = Session(connection)
        emit(session, "page.lost", {})
        del session
        gc.collect()
        connection.commit()
    assert types(results) == []


@pytest.mark.parametrize("moment", ["after_commit", "after_rollback"])
def test_what_comes_after_the_end_of_the_transaction_is_refused(results, moment):
    refused = []

    def too_late(session):
        with pytest.raises(NoTransaction, match="emit before the commit"):
            emit(session, "page.late", {})
        refused.append(moment)

    with Session(results.engine) as session:
        sa.event.listen(session, moment, too_late)
        session.execute(INSERT)
        emit(session, "page.read", {})
        session.commit() if moment == "after_commit" else session.rollback()
    assert refused == [moment]
    assert types(results) == (["page.read"] if moment == "after_commit" else [])


def test_a_failed_flush_has_to_be_rolled_back_before_anything_is_accepted(results):
    with Session(results.engine) as session:
        session.add(Result(name="r"))
        session.commit()
        session.add(Result(name="r"))
        with pytest.raises(sa.exc.IntegrityError):
            session.flush()
        with pytest.raises(NoTransaction, match="roll the session back first"):
            emit(session, "page.lost", {})
        session.rollback()
        emit(session, "page.kept", {})
        session.commit()
    assert types(results) == ["page.kept"]


@pytest.mark.parametrize("moment", ["before_flush", "before_commit"])
def test_hooks_that_look_at_all_new_objects_find_rows_of_a_table(results, moment):
    seen = []

    def audit(session, *_):
        seen.extend((each.__tablename__, sa.inspect(each).mapper.local_table.name) for each in session.new)

    with Session(results.engine) as session:
        sa.event.listen(session, moment, audit)
        session.add(Result(name="r"))
        emit(session, "page.read", {})
        session.commit()
    assert sorted(set(seen)) == [("outbox_message", "outbox_message"), ("results", "results")]
    assert (names(results), types(results)) == (["r"], ["page.read"])


def test_a_hook_that_takes_out_what_it_does_not_know_loses_no_message(results):
    def take_out(session, *_):
        for each in session.new:
            if not isinstance(each, Result):
                session.expunge(each)

    with Session(results.engine) as session:
        sa.event.listen(session, "before_flush", take_out)
        session.add(Result(name="r"))
        emit(session, "page.read", {})
        session.commit()
        emit(session, "page.lost", {})
        with pytest.raises(NoTransaction, match="do not expunge"):
            session.commit()
    assert (names(results), types(results)) == (["r"], ["page.read"])


def test_what_could_not_be_written_keeps_the_session_from_committing(results):
    id = "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"
    with Session(results.engine) as session:
        emit(session, "page.read", {}, id=id)
        session.commit()
        session.execute(INSERT)
        emit(session, "page.again", {}, id=id)
        for _ in range(2):
            with pytest.raises(Exception, match=r"unique|UNIQUE|duplicate|rolled back|exists already"):
                session.commit()
            session.expunge_all()
    assert (names(results), types(results)) == ([], ["page.read"])


def test_a_marker_stays_in_no_session(results):
    with Session(results.engine) as session, session.begin():
        for number in range(3):
            emit(session, "page.read", {"n": number})
            session.flush()
            gc.collect()
            assert list(session) == []
    assert len(types(results)) == 3
