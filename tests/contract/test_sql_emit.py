"""Other languages and least privilege: `outbox_emit`, and a role that may INSERT and nothing else."""

import re
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from support.writers import WAYS, Writer

COLUMNS = "type, source, subject, ordering_key, data, headers, due_at, state"


@pytest.fixture
def worker_role(postgres_database):
    """A role that may only INSERT into two tables and take turns; yields the database as that role sees it."""
    name = f"worker_{postgres_database.url.rpartition('/')[2]}"
    url = sa.make_url(postgres_database.url).set(username=name, password="w").render_as_string(hide_password=False)
    postgres_database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'w'")
    postgres_database.execute(f"GRANT INSERT ON outbox_message, inbox_message TO {name}")
    postgres_database.execute(f"GRANT EXECUTE ON FUNCTION outbox_take_turns(text[]) TO {name}")
    seen = type(postgres_database)("postgres", url)
    yield seen
    seen.dispose()
    postgres_database.execute(f"DROP OWNED BY {name}")
    postgres_database.execute(f"DROP ROLE {name}")


def test_the_statement_of_the_manual_works_as_printed(postgres_database):
    id = postgres_database.scalar("""SELECT outbox_emit('extraction.completed', '{"contentId": "c-1"}')""")
    assert UUID(str(id)).version == 7
    (row,) = postgres_database.rows(f"SELECT {COLUMNS} FROM outbox_message")
    assert row == ("extraction.completed", "outbox", None, None, {"contentId": "c-1"}, {}, None, "ready")


def test_every_option_can_be_given_by_position_or_by_name(postgres_database):
    id = "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"
    postgres_database.execute(
        f"""SELECT outbox_emit('page.read', '[1]', 'k', 's', '{{"x-a": "b"}}', '2099-01-01 12:00:00Z', '{id}')"""
    )
    postgres_database.execute("""SELECT outbox_emit('page.read', data => '[1]', headers => '{"x-a": "b"}')""")
    first, second = postgres_database.rows(f"SELECT id, {COLUMNS} FROM outbox_message ORDER BY position")
    assert str(first.id) == id
    assert first[1:7] == ("page.read", "outbox", "s", "k", [1], {"x-a": "b"})
    assert (first.due_at.year, first.state) == (2099, "scheduled")
    assert (second.headers, second.due_at, second.state) == ({"x-a": "b"}, None, "ready")


def test_a_rolled_back_call_leaves_nothing(postgres_database):
    with postgres_database.engine.connect() as connection:
        connection.execute(sa.text("SELECT outbox_emit('page.read', '{}')"))
        connection.rollback()
    assert postgres_database.scalar("SELECT count(*) FROM outbox_message") == 0


def test_ids_made_by_the_database_are_distinct_and_carry_its_clock(postgres_database):
    ms = "extract(epoch FROM clock_timestamp()) * 1000"
    rows = postgres_database.rows(
        f"SELECT floor({ms}) AS before, outbox_uuid7() AS id, ceil({ms}) AS after FROM generate_series(1, 1000)"
    )
    assert len({row.id for row in rows}) == 1000
    for row in rows:
        made_ms = UUID(str(row.id)).int >> 80
        assert UUID(str(row.id)).version == 7
        assert row.before <= made_ms <= row.after


@pytest.mark.parametrize("way", [way for way in WAYS if way.kind == "postgres"], ids=str)
async def test_a_role_that_may_only_insert_can_do_all_that_a_worker_does(worker_role, postgres_database, way):
    writer = Writer(worker_role, way)
    async with writer.transaction() as transaction:
        await transaction.emit("page.read", {}, ordering_key="k", strict_order=True)
        await transaction.emit("page.read", {}, delay=5)
        await transaction.emit_many([("page.read", {"n": n}) for n in range(10)])
        assert await transaction.once("listener", "m-1")
        assert not await transaction.once("listener", "m-1")
    assert postgres_database.scalar("SELECT count(*) FROM outbox_message") == 12
    worker_role.dispose()


def test_a_role_that_may_only_insert_can_call_the_function_and_read_nothing(worker_role, postgres_database):
    worker_role.execute("SELECT outbox_emit('page.read', '{}')")
    assert postgres_database.scalar("SELECT count(*) FROM outbox_message") == 1
    with pytest.raises(DBAPIError, match="permission denied"):
        worker_role.rows("SELECT * FROM outbox_message")
    worker_role.dispose()


@pytest.mark.parametrize("sleeping", [False, True])
def test_an_insert_only_role_wakes_a_sleeping_relay(worker_role, postgres_database, sleeping):
    """With any value of the flag, its insert must not fail because of a missing right."""
    postgres_database.execute(f"SELECT setval('outbox_wake', {2 if sleeping else 1})")
    worker_role.execute("SELECT outbox_emit('page.read', '{}')")
    worker_role.dispose()
    assert postgres_database.scalar("SELECT count(*) FROM outbox_message") == 1


def test_what_python_wrote_and_what_sql_wrote_differ_only_in_their_ids(postgres_database):
    from outbox import emit

    with postgres_database.engine.begin() as connection:
        emit(connection, "page.read", {"a": [1, "é"]}, ordering_key="k", subject="s", headers={"x-a": "b"})
    body = '{"a":[1,"é"]}'
    postgres_database.execute(f"""SELECT outbox_emit('page.read', '{body}'::json, 'k', 's', '{{"x-a": "b"}}')""")
    python, sql = postgres_database.rows(f"SELECT {COLUMNS}, shard, size, generation FROM outbox_message")
    assert python == sql


def test_a_bare_number_is_refused_by_sqlite_which_would_not_keep_it_as_text(sqlite_database):
    insert = "INSERT INTO outbox_message (id, type, source, data) VALUES (:id, 'page.read', 'sql', :data)"
    sqlite_database.execute(insert, id=str(uuid4()), data="{}")
    for number in ("7", "1.10", "12345678901234567890"):
        with pytest.raises(DBAPIError, match="CHECK constraint failed: json_type"):
            sqlite_database.execute(insert, id=str(uuid4()), data=number)


@pytest.mark.parametrize("body", ["1", '"text"', "null", "true"])
def test_a_value_by_itself_is_refused_as_emit_refuses_it(database, body):
    """On SQLite, which has no outbox_emit, the table refuses it."""
    statement = "INSERT INTO outbox_message (id, type, source, data) VALUES (:id, 'a.b', 's', :body)"
    if database.kind == "postgres":
        statement = "SELECT outbox_emit('a.b', CAST(:body AS json), id => CAST(:id AS uuid))"
    with pytest.raises(DBAPIError, match=r"an object or an array|CHECK constraint failed"):
        database.execute(statement, id=str(uuid4()), body=body)
    assert database.scalar("SELECT count(*) FROM outbox_message") == 0


def test_an_id_is_taken_once_whether_its_message_waits_or_is_settled(postgres_database):
    id = "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"
    again = f"SELECT outbox_emit('a.b', '{{}}', id => '{id}')"
    columns = "id, position, type, source, data, headers, created_at"
    postgres_database.execute(again)
    with pytest.raises(DBAPIError, match="not settled yet"):
        postgres_database.execute(again)
    postgres_database.execute(
        f"INSERT INTO outbox_history ({columns}, attempts) SELECT {columns}, 1 FROM outbox_message"
    )
    postgres_database.execute("DELETE FROM outbox_message")
    with pytest.raises(DBAPIError, match="settled already"):
        postgres_database.execute(again)


def test_a_sessions_temporary_tables_never_replace_ours_in_functions_with_owners_rights(worker_role, postgres_database):
    functions = postgres_database.rows(
        "SELECT proname, array_to_string(proconfig, ' ') AS settings FROM pg_proc "
        "WHERE prosecdef AND proname ~ '^outbox_'"
    )
    assert len(functions) == 4
    for each in functions:
        assert re.search(r"search_path=\w+, pg_temp", each.settings), each.proname
    id = "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"
    again = f"SELECT outbox_emit('a.b', '{{}}', id => '{id}')"
    postgres_database.execute(again)
    with worker_role.engine.connect() as connection:
        connection.execute(sa.text("CREATE TEMP TABLE outbox_message (id uuid)"))
        connection.execute(sa.text("CREATE TEMP TABLE outbox_history (id uuid)"))
        with pytest.raises(DBAPIError, match="not settled yet"):
            connection.execute(sa.text(f"SELECT outbox_new_id('{id}')"))
