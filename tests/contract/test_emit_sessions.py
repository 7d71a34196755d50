"""What a SQLAlchemy session does with messages: everything that it does with rows."""

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from support.results import Result, types

from outbox import InvalidTarget, NoTransaction, Outbox, emit, emit_async, emit_many, once


def test_a_session_goes_on_after_commits_and_rollbacks(results):
    with Session(results.engine) as session:
        emit(session, "page.first", {})
        session.commit()
        emit(session, "page.lost", {})
        session.rollback()
        emit(session, "page.second", {})
        session.flush()
        emit(session, "page.third", {})
        session.commit()
        emit(session, "page.never", {})
    assert types(results) == ["page.first", "page.second", "page.third"]


def test_a_flush_that_fails_takes_the_messages_with_it(results):
    with Session(results.engine) as session:
        session.add(Result(name="taken"))
        session.commit()
        emit(session, "page.lost", {})
        session.execute(sa.insert(Result).values(name="new"))
        emit(session, "page.lost", {})
        session.add(Result(name="taken"))
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()
        session.rollback()
        emit(session, "page.kept", {})
        session.commit()
    assert types(results) == ["page.kept"]


def test_rows_and_messages_of_one_flush_are_one_transaction(results):
    with Session(results.engine) as session, session.begin():
        emit(session, "page.before", {})
        session.add(Result(name="r"))
        emit(session, "page.after", {})
        assert session.scalar(sa.select(Result.name)) == "r"
    assert types(results) == ["page.before", "page.after"]


def test_a_session_that_joined_a_transaction_leaves_its_fate_to_it(results):
    with results.engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            emit(session, "page.read", {})
            session.commit()
        assert connection.scalar(sa.text("SELECT count(*) FROM outbox_message")) == 1
        outer.rollback()
    assert types(results) == []


@pytest.mark.parametrize("moment", ["before_flush", "after_flush"])
def test_what_a_flush_event_emits_is_written_too(results, moment):
    with Session(results.engine) as session:
        emitted = []

        def emit_once(session, *_):
            if not emitted:
                emitted.append(emit(session, "page.inside", {}))

        sa.event.listen(session, moment, emit_once)
        session.add(Result(name="r"))
        emit(session, "page.outside", {})
        session.commit()
    assert sorted(types(results)) == ["page.inside", "page.outside"]


@pytest.mark.filterwarnings("ignore:Usage of the 'Session.add:sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize("moment", ["before_insert", "after_insert"])
def test_what_a_mapper_event_emits_is_not_lost(results, moment):
    with Session(results.engine) as session:

        def emit_for(mapper, connection, result):
            emit(session, "page.inside", {"name": result.name})

        sa.event.listen(Result, moment, emit_for)
        try:
            emit(session, "page.outside", {})
            session.add_all([Result(name="a"), Result(name="b")])
            session.commit()
        finally:
            sa.event.remove(Result, moment, emit_for)
    assert sorted(types(results)) == ["page.inside", "page.inside", "page.outside"]


def test_a_session_that_routes_writes_elsewhere_routes_messages_there_too(results):
    elsewhere = sa.create_engine("sqlite://")

    class Routing(Session):
        def get_bind(self, mapper=None, *, clause=None, **options):
            return results.engine if self._flushing or isinstance(clause, sa.Insert) else elsewhere

    with Routing() as session, session.begin():
        emit(session, "page.read", {})
        emit_many(session, [("page.read", {})] * 2)
        assert once(session, "listener", "m-1")
    elsewhere.dispose()
    assert len(types(results)) == 3


def test_a_scoped_session_is_the_threads_session(results):
    sessions = scoped_session(sessionmaker(results.engine))
    emit(sessions, "page.read", {})
    sessions.commit()
    assert once(sessions, "listener", "m-1")
    sessions.remove()
    assert types(results) == ["page.read"]


async def test_an_async_scoped_session_is_the_tasks_session(results):
    sessions = async_scoped_session(async_sessionmaker(results.async_engine()), scopefunc=lambda: 1)
    emit(sessions, "page.read", {})
    await emit_async(sessions, "page.read", {})
    await sessions.commit()
    await sessions.remove()
    assert len(types(results)) == 2


async def test_a_session_inside_run_sync_is_a_session(results):
    async with AsyncSession(results.async_engine()) as session, session.begin():
        await session.run_sync(lambda inner: emit(inner, "page.read", {}))
    assert types(results) == ["page.read"]


async def test_once_on_an_async_session_has_to_be_awaited(results):
    async with AsyncSession(results.async_engine()) as session:
        with pytest.raises(InvalidTarget, match="write await once_async"):
            once(session, "listener", "m-1")


async def test_emit_async_without_an_async_target_says_so(results):
    with Session(results.engine) as session, pytest.raises(InvalidTarget, match="without _async"):
        await emit_async(session, "page.read", {})


def test_a_driver_set_to_autocommit_behind_our_back_is_noticed(results):
    with results.engine.connect() as connection:
        driver = connection.connection.driver_connection
        if results.kind == "sqlite":
            driver.isolation_level = None
        else:
            driver.autocommit = True
        with pytest.raises(NoTransaction):
            emit(connection, "page.read", {})
        connection.invalidate()
    assert types(results) == []


def test_sqlite_transactions_begun_by_the_host_are_transactions(sqlite_database):
    """SQLAlchemy's manual advises this: the driver begins no transaction, the engine's events do."""
    engine = sqlite_database.sync_engine()
    sa.event.listen(engine, "connect", lambda driver, _: setattr(driver, "isolation_level", None))
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with Session(engine) as session:
        emit(session, "page.lost", {})
        session.flush()
        session.rollback()
        emit(session, "page.kept", {})
        session.commit()
    assert types(sqlite_database) == ["page.kept"]


def test_a_second_outbox_lives_in_a_schema_of_its_own(postgres_database):
    from relay.databases.migrations import upgrade

    upgrade(postgres_database.url, schema="billing", only="outbox")
    billing = Outbox(schema="billing", source="/billing/worker")
    with Session(postgres_database.engine) as session, session.begin():
        billing.emit(session, "invoice.paid", {})
        emit(session, "page.read", {})
        billing.emit_many(session, [("invoice.paid", {})] * 2)
        assert billing.once(session, "listener", "m-1")
        assert once(session, "listener", "m-1")
    with postgres_database.engine.begin() as connection:
        billing.emit(connection, "invoice.paid", {}, ordering_key="k", strict_order=True)
    rows = postgres_database.rows("SELECT type, source FROM billing.outbox_message ORDER BY position")
    assert rows == [("invoice.paid", "/billing/worker")] * 4
    assert types(postgres_database) == ["page.read"]


def test_a_schema_translate_map_is_followed(postgres_database):
    from relay.databases.migrations import upgrade

    upgrade(postgres_database.url, schema="tenant_1", only="outbox")
    engine = postgres_database.engine.execution_options(schema_translate_map={None: "tenant_1"})
    with Session(engine) as session, session.begin():
        emit_many(session, [("page.read", {})] * 3)
    assert postgres_database.scalar("SELECT count(*) FROM tenant_1.outbox_message") == 3
