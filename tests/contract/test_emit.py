"""A message is written through every driver, session and connection, into the caller's transaction and nowhere else."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from support.waiting import eventually
from support.writers import WAYS, Writer

from outbox import (
    Draft,
    DuplicateId,
    EmitError,
    Event,
    InvalidData,
    InvalidEvent,
    InvalidTarget,
    NoTransaction,
    TooLarge,
    emit,
    emit_many,
)
from outbox.errors import SchemaError

results = sa.Table("results", sa.MetaData(), sa.Column("name", sa.Text))


class ExtractionCompleted(Event, type="extraction.emitted"):
    content_id: str


class Stop(Exception):
    """Ends a transaction from inside."""


@pytest.fixture(params=WAYS, ids=str)
def writer(request):
    way = request.param
    database = request.getfixturevalue(f"{way.kind}_database")
    with database.engine.begin() as connection:
        results.create(connection)
    return Writer(database, way)


def parsed(value):
    return json.loads(value) if isinstance(value, str) else value


async def test_a_committed_message_is_stored_as_it_was_meant(writer):
    id = await writer.emit(
        ExtractionCompleted(content_id="c-1"),
        ordering_key="c-1",
        subject="content/c-1",
        headers={"x-tenant": "t-1"},
    )
    (row,) = writer.rows("id, type, source, subject, ordering_key, data, headers, state, due_at, generation")
    assert str(row.id) == id
    assert UUID(id).version == 7
    assert row[1:5] == ("extraction.emitted", "outbox", "content/c-1", "c-1")
    assert parsed(row.data) == {"contentId": "c-1"}
    assert parsed(row.headers) == {"x-tenant": "t-1"}
    assert row[-3:] == ("ready", None, 0)


async def test_a_message_may_be_a_type_and_data(writer):
    await writer.emit("page.read", {"page": [1, None, {"é": "\u2028 \\u0000 \"'%s :x"}]})
    (row,) = writer.rows("type, data, headers")
    assert (row.type, parsed(row.data)) == ("page.read", {"page": [1, None, {"é": "\u2028 \\u0000 \"'%s :x"}]})
    assert parsed(row.headers) == {}


async def test_an_exception_takes_the_message_with_the_result(writer):
    with suppress(Stop):
        async with writer.transaction() as transaction:
            await transaction.execute(results.insert().values(name="r"))
            await transaction.emit("page.read", {})
            raise Stop
    assert writer.rows() == []
    assert writer.database.rows("SELECT * FROM results") == []


async def test_a_rolled_back_savepoint_takes_its_messages_and_no_others(writer):
    async with writer.transaction() as transaction:
        await transaction.emit("page.before", {})
        with suppress(Stop):
            async with transaction.savepoint():
                await transaction.emit("page.inside", {})
                await transaction.execute(results.insert().values(name="r"))
                await transaction.emit("page.inside", {})
                raise Stop
        async with transaction.savepoint():
            await transaction.emit("page.kept", {})
        await transaction.emit("page.after", {})
    assert [row.type for row in writer.rows("type")] == ["page.before", "page.kept", "page.after"]


async def test_a_released_savepoint_is_still_part_of_its_transaction(writer):
    with suppress(Stop):
        async with writer.transaction() as transaction:
            async with transaction.savepoint():
                await transaction.execute(results.insert().values(name="r"))
                await transaction.emit("page.inside", {})
            async with transaction.savepoint():
                await transaction.emit("page.inside", {})
            raise Stop
    assert writer.rows() == []
    assert writer.database.rows("SELECT * FROM results") == []


async def test_a_savepoint_within_a_savepoint_is_undone_with_the_outer_one(writer):
    async with writer.transaction() as transaction:
        with suppress(Stop):
            async with transaction.savepoint():
                async with transaction.savepoint():
                    await transaction.emit("page.inner", {})
                raise Stop
        await transaction.emit("page.after", {})
    assert [row.type for row in writer.rows("type")] == ["page.after"]


async def test_messages_are_stored_in_the_order_of_the_calls(writer):
    async with writer.transaction() as transaction:
        await transaction.emit("page.n", {"n": 0})
        await transaction.emit("page.n", {"n": 1}, delay=3600)
        await transaction.emit_many([("page.n", {"n": n}) for n in range(2, 20)], ordering_key="k")
        await transaction.execute(sa.select(1))
        await transaction.emit("page.n", {"n": 20}, ordering_key="k", strict_order=True)
        await transaction.emit_many(
            [Draft("page.n", {"n": 21}, due_at=datetime(2099, 1, 1, tzinfo=UTC)), Draft("page.n", {"n": 22}, delay=5)]
        )
        await transaction.emit("page.n", {"n": 23})
    assert [parsed(row.data)["n"] for row in writer.rows("data")] == list(range(24))


async def test_many_messages_are_what_one_by_one_would_have_made_of_them(writer):
    due_at = datetime(2099, 1, 1, tzinfo=UTC)
    drafts = [
        Draft(ExtractionCompleted(content_id='c"1\\')),
        Draft("page.read", ['é\n"', 1.5], ordering_key='k"\\', subject="s\u2028é", headers={"x-a": 'b"\\'}),
        Draft("page.read", {}, due_at=due_at, id="0197C2F0A1B27C3D8E4F5A6B7C8D9E0F"),
        Draft("page.read", {}, delay=60),
        Draft("page.read", ["text"]),
    ]
    columns = "type, source, subject, ordering_key, data, headers, state, due_at IS NULL"
    async with writer.transaction() as transaction:
        together = await transaction.emit_many(drafts)
    assert [str(row.id) for row in writer.rows("id")] == together
    stored_together = writer.rows(columns)
    writer.database.execute("DELETE FROM outbox_message")
    for draft in drafts:
        await writer.emit(
            draft.event,
            draft.data,
            **{name: getattr(draft, name) for name in ("ordering_key", "subject", "headers", "due_at", "delay", "id")},
        )
    assert writer.rows(columns) == stored_together


async def test_many_may_be_events_that_share_a_key(writer):
    async with writer.transaction() as transaction:
        await transaction.emit_many([ExtractionCompleted(content_id=each) for each in "ab"], ordering_key="k")
    assert [parsed(row.data) for row in writer.rows("data")] == [{"contentId": "a"}, {"contentId": "b"}]
    assert {(row.type, row.ordering_key) for row in writer.rows("type, ordering_key")} == {("extraction.emitted", "k")}


async def test_no_messages_are_no_work(writer):
    async with writer.transaction() as transaction:
        assert await transaction.emit_many([]) == []
    assert writer.rows() == []


async def test_a_delayed_message_is_scheduled_by_the_databases_clock(writer):
    await writer.emit("page.read", {}, delay=timedelta(minutes=90))
    seconds = (
        "round((julianday(due_at) - julianday(created_at)) * 86400)"
        if writer.way.kind == "sqlite"
        else "round(extract(epoch FROM due_at - created_at))"
    )
    (row,) = writer.rows(f"state, {seconds} AS delay_s")
    assert (row.state, int(row.delay_s)) == ("scheduled", 5400)


async def test_a_message_for_later_is_scheduled_for_that_instant(writer):
    await writer.emit("page.read", {}, due_at=datetime(2099, 1, 1, 12, tzinfo=UTC))
    instant = "due_at" if writer.way.kind == "sqlite" else "to_char(due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
    (row,) = writer.rows(f"state, {instant} AS due_at")
    assert (row.state, row.due_at[:19]) == ("scheduled", "2099-01-01 12:00:00")


async def test_a_given_id_is_stored_in_its_usual_form_and_only_once(writer):
    spelled = "0197C2F0A1B27C3D8E4F5A6B7C8D9E0F"
    assert await writer.emit("page.read", {}, id=spelled) == str(UUID(spelled))
    with pytest.raises(DuplicateId, match="each id is for one message"):
        await writer.emit("page.read", {}, id=UUID(spelled))
    assert [str(row.id) for row in writer.rows("id")] == [str(UUID(spelled))]


async def test_a_given_id_is_refused_also_when_its_first_message_is_settled(writer):
    """Otherwise the relay's speed would decide whether the second one is refused or delivered."""
    id, new = "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f", "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e10"
    columns = "id, position, type, source, data, headers, created_at"
    await writer.emit("page.read", {"n": 1}, id=id)
    writer.database.execute(f"INSERT INTO outbox_history ({columns}, attempts) SELECT {columns}, 1 FROM outbox_message")
    writer.database.execute("DELETE FROM outbox_message")
    with pytest.raises(DuplicateId, match="each id is for one message"):
        await writer.emit("page.read", {"n": 2}, id=id, delay=5, subject="s")
    with pytest.raises(DuplicateId):
        async with writer.transaction() as transaction:
            await transaction.emit_many(
                [("page.read", {}), Draft("page.read", {}, id=new), Draft("page.read", {"n": 2}, id=id)]
            )
    assert writer.rows() == []
    async with writer.transaction() as transaction:
        await transaction.emit_many([("page.read", {"n": 3}), Draft("page.read", {"n": 4}, id=new, delay=5)])
    assert [parsed(row.data)["n"] for row in writer.rows("data")] == [3, 4]


def test_what_a_relay_is_settling_just_then_is_waited_for(postgres_database):
    """The row is deleted, and not yet in the history, when the second message with its id arrives."""
    id = "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"
    columns = "id, position, type, source, data, headers, created_at"
    with postgres_database.engine.begin() as connection:
        emit(connection, "page.read", {}, id=id)
    with postgres_database.engine.connect() as relay, ThreadPoolExecutor(1) as pool:
        relay.execute(
            sa.text(f"INSERT INTO outbox_history ({columns}, attempts) SELECT {columns}, 1 FROM outbox_message")
        )
        relay.execute(sa.text("DELETE FROM outbox_message"))

        def emit_again():
            with postgres_database.engine.begin() as connection:
                emit(connection, "page.read", {}, id=id)

        second = pool.submit(emit_again)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        eventually(lambda: postgres_database.scalar(waits) == 1)
        relay.commit()
        with pytest.raises(DuplicateId):
            second.result()


async def test_missing_tables_are_named_with_the_command_that_makes_them(writer):
    writer.database.execute("DROP TABLE outbox_message")
    writer.database.execute("DROP TABLE inbox_message")
    with pytest.raises(SchemaError, match="run `outbox db upgrade`") as raised:
        await writer.emit("page.read", {})
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    with pytest.raises(SchemaError, match="run `outbox db upgrade`"):
        async with writer.transaction() as transaction:
            await transaction.once("listener", "m-1")


async def test_once_knows_an_id_however_it_is_spelled(writer):
    id = UUID("0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f")
    async with writer.transaction() as transaction:
        assert await transaction.once("listener", str(id))
        for spelling in (id, str(id).upper(), id.hex, id.hex.upper(), f"urn:uuid:{id}"):
            assert not await transaction.once("listener", spelling)
        assert await transaction.once("listener", "order-A")
        assert await transaction.once("listener", "order-a")


REFUSALS = [
    (("page.read", {"a": "\0"}), {}),
    (("page.read", {"a": float("nan")}), {}),
    (("page.read", ["x" * 300_000]), {}),
    (("page read", {}), {}),
    (("page.read",), {}),
    (("page.read", {}), {"ordering_key": ""}),
    (("page.read", {}), {"headers": {"ce-id": "1"}}),
    (("page.read", {}), {"id": "c-1"}),
    (("page.read", {}), {"due_at": datetime(2026, 1, 1)}),
    (("page.read", {}), {"subject": "\ud800"}),
]


async def test_what_is_refused_leaves_nothing_behind_and_the_transaction_usable(writer):
    async with writer.transaction() as transaction:
        for event, options in REFUSALS:
            with pytest.raises(EmitError):
                await transaction.emit(*event, **options)
        await transaction.execute(results.insert().values(name="r"))
        await transaction.emit("page.kept", {})
    assert [row.type for row in writer.rows("type")] == ["page.kept"]
    assert len(writer.database.rows("SELECT * FROM results")) == 1


async def test_one_bad_item_refuses_all_and_is_named(writer):
    async with writer.transaction() as transaction:
        with pytest.raises(TooLarge, match=r"^items\[1\]: the data is"):
            await transaction.emit_many([("page.read", {}), ("page.read", ["x" * 300_000])])
        with pytest.raises(InvalidEvent, match="pass an Event, a pair"):
            await transaction.emit_many([("page.read", {}, "more")])
        with pytest.raises(InvalidData, match=r"^items\[0\]: data\.a"):
            await transaction.emit_many([("page.read", {"a": "\0"}), ("page.read", {})])
    assert writer.rows() == []


async def test_one_event_in_place_of_a_list_is_refused_and_its_fields_are_not_taken_for_messages(writer):
    class PageKept(Event, type="page.kept"):
        page: dict[str, int]

    async with writer.transaction() as transaction:
        for event in (PageKept(page={"n": 1}), Draft("page.kept", {"n": 1})):
            with pytest.raises(InvalidEvent, match="is one event: pass a list of events, or use emit"):
                await transaction.emit_many(event)
    assert writer.rows() == []


async def test_a_connection_that_commits_by_itself_is_refused(writer):
    with pytest.raises(NoTransaction, match="could not be committed together"):
        async with writer.transaction(isolation_level="AUTOCOMMIT") as transaction:
            await transaction.emit("page.read", {})
    with pytest.raises(NoTransaction):
        async with writer.transaction(execution_options={"isolation_level": "AUTOCOMMIT"}) as transaction:
            await transaction.emit_many([("page.read", {}), ("page.read", {})])
    assert writer.rows() == []


async def test_nothing_is_read_back(writer):
    """A worker's role may only INSERT, and a RETURNING requires the right to SELECT."""
    statements = []

    def record(connection, cursor, statement, *_):
        if connection.engine.url.database == sa.make_url(writer.database.url).database:
            statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", record)
    try:
        async with writer.transaction() as transaction:
            await transaction.emit("page.read", {}, delay=1)
            await transaction.emit("page.read", {})
            await transaction.emit_many([("page.read", {})] * 3)
            await transaction.once("listener", "m-1")
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", record)
    writes = [statement for statement in statements if statement.startswith("INSERT")]
    assert len(writes) >= 2
    assert not [statement for statement in writes if "RETURNING" in statement]


def test_what_a_message_does_not_have_is_left_to_its_column(database):
    """With many writers, every parameter costs."""
    statements = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    with database.engine.begin() as connection:
        emit(connection, "page.read", {})
    (written,) = statements
    assert re.findall(r"\w+", written.partition("VALUES")[0])[2:] == ["outbox_message", "id", "type", "source", "data"]


async def test_many_messages_are_one_statement(writer):
    writes = []
    pages = [("page.read", {"n": n}) for n in range(50)]

    def record(connection, cursor, statement, *_):
        if "INSERT INTO outbox_message" in statement:
            writes.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", record)
    try:
        async with writer.transaction() as transaction:
            await transaction.emit_many(pages)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", record)
    assert len(writes) == 1
    assert [parsed(row.data)["n"] for row in writer.rows("data")] == list(range(50))


async def test_a_batch_larger_than_one_statement_is_stored_in_order(writer, monkeypatch):
    monkeypatch.setattr("outbox.writing.dialects.postgresql.dialect.MAX_BATCH_CHARACTERS", 1_000)
    async with writer.transaction() as transaction:
        await transaction.emit_many([("page.read", {"n": n}) for n in range(40)])
    assert [parsed(row.data)["n"] for row in writer.rows("data")] == list(range(40))


async def test_the_largest_message_fits(writer):
    await writer.emit("page.read", ["é" * (128 * 1024 - 2)])
    async with writer.transaction() as transaction:
        await transaction.emit_many([("page.read", ["x" * (256 * 1024 - 4)])] * 2)
    assert len(writer.rows("id")) == 3


async def test_an_async_connection_has_to_be_awaited(postgres_database):
    writer = Writer(postgres_database, next(way for way in WAYS if way.is_async and way.target == "connection"))
    async with writer.transaction() as transaction:
        with pytest.raises(InvalidTarget, match=r"write await emit_async\(…\)"):
            writer.outbox.emit(transaction.target, "page.read", {})


@pytest.mark.parametrize("target", ["postgresql://…", None, 7, object()])
def test_what_has_no_transaction_to_join_is_refused(target):
    from outbox import emit

    with pytest.raises(InvalidTarget, match="pass a Session or Connection"):
        emit(target, "page.read", {})


def test_an_engine_is_not_a_transaction(database):
    from outbox import emit

    with pytest.raises(InvalidTarget, match="pass a Session or Connection"):
        emit(database.engine, "page.read", {})


async def test_any_text_comes_through_a_batch_as_it_is(writer):
    """PostgreSQL splits one parameter into the values of a column."""
    texts = ["\x1f", "NULL", "null", "{}", '","', "\\", 'a"b\\"', "a,b", " a ", "\n", "é\u2028𝄞"]
    drafts = [Draft("page.read", {"text": each, each: 1}, ordering_key=each, subject=each) for each in texts]
    plain = Draft("page.read", ["\x1f"], headers={"x-a": "NULL", "x-b": '","\\'})
    scheduled = Draft("page.read", {}, due_at=datetime(2030, 1, 1, tzinfo=UTC))
    async with writer.transaction() as transaction:
        await transaction.emit_many([plain, *drafts, scheduled])
    first, *rows, last = writer.rows("ordering_key, subject, data, headers, state")
    assert [(row.ordering_key, row.subject, parsed(row.data), parsed(row.headers), row.state) for row in rows] == [
        (each, each, {"text": each, each: 1}, {}, "ready") for each in texts
    ]
    assert (first.ordering_key, first.subject, parsed(first.data)) == (None, None, ["\x1f"])
    assert parsed(first.headers) == {"x-a": "NULL", "x-b": '","\\'}
    assert (last.state, last.ordering_key, parsed(last.headers)) == ("scheduled", None, {})


async def test_what_all_messages_of_a_batch_share_comes_through_as_it_is(writer):
    texts = ["\x1f", "NULL", "{}", '","', 'a"b\\"', " a ", "é\u2028𝄞"]
    due_at = datetime(2030, 1, 1, tzinfo=UTC)
    async with writer.transaction() as transaction:
        for each in texts:
            await transaction.emit_many([("page.read", {})] * 2, ordering_key=each, subject=each, headers={"x-a": "{}"})
        await transaction.emit_many([("page.read", {})] * 2, due_at=due_at, expires_in=60)
        await transaction.emit_many([("page.read", {})] * 2, delay=60, expires_in=60)
        await transaction.emit_many([Draft("page.read", {}, id=uuid4()) for _ in range(2)])
    rows = writer.rows("ordering_key, subject, headers, state, due_at IS NULL AS is_now, expires_at IS NULL AS stays")
    found = [(row.ordering_key, row.subject, parsed(row.headers), row.state) for row in rows]
    assert found[:-6] == [(each, each, {"x-a": "{}"}, "ready") for each in texts for _ in range(2)]
    assert found[-6:] == [(None, None, {}, "scheduled")] * 4 + [(None, None, {}, "ready")] * 2
    assert [(row.is_now, row.stays) for row in rows[-6:]] == [(False, False)] * 4 + [(True, True)] * 2


def test_what_all_messages_of_a_batch_share_is_sent_once(postgres_database):
    """The server would split it and put it together again for each row."""
    sent = []
    sa.event.listen(postgres_database.engine, "before_cursor_execute", lambda *given: sent.append(given[3]))
    with postgres_database.engine.begin() as connection:
        emit_many(connection, [("page.read", {})] * 3, ordering_key="k")
        emit_many(connection, [("page.read", {}), ("page.seen", {})])
    first, second = ({name: each[name] for name in each if name not in ("id", "data")} for each in sent)
    assert first == {"type": "page.read", "source": "outbox", "ordering_key": "k"}
    assert second == {"type": "page.read\x1fpage.seen", "source": "outbox"}


def test_small_messages_count_too_against_the_size_of_a_statement(postgres_database, monkeypatch):
    monkeypatch.setattr("outbox.writing.dialects.postgresql.dialect.MAX_BATCH_CHARACTERS", 1_000)
    statements = []
    sa.event.listen(postgres_database.engine, "before_cursor_execute", lambda *given: statements.append(given[3]))
    with postgres_database.engine.begin() as connection:
        emit_many(connection, [("page.read", {})] * 40)
    sizes = [sum(map(len, parameters.values())) for parameters in statements]
    assert len(sizes) > 2
    assert max(sizes) < 1_100, "with the separators"


def test_a_batch_has_only_the_columns_that_a_message_has(postgres_database):
    """The server splits each one for each row."""
    statements = []
    sa.event.listen(postgres_database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    with postgres_database.engine.begin() as connection:
        emit_many(connection, [("page.read", {}), ("page.read", {})])
        emit_many(connection, [("page.read", {}), Draft("page.read", {}, subject="s", delay=1)])
    columns = [re.findall(r"\w+", written.partition("SELECT")[0])[3:] for written in statements]
    always = ["id", "type", "source", "data"]
    assert list(map(sorted, columns)) == [sorted(always), sorted([*always, "due_at", "state", "subject"])]
