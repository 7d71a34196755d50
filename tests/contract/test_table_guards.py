"""The tables check messages written by SQL, and relays check them again before sending; none stops a relay."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError, IntegrityError
from support.databases import Database
from support.receivers import Receiver
from support.scene import Scene, Taker

from outbox import emit
from relay.admin.access.opening import opened_snapshot
from relay.destinations.http.settings import HttpSettings
from relay.relay import Relay
from relay.settings import Settings

ID = "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"

# SQLite names a constraint, PostgreSQL's trigger the column.
TYPE, CREATED, DATE, DUE = (
    "outbox_message.type",
    "outbox_message.created",
    "outbox_message_due_is_date",
    "outbox_message.due",
)
LONG = "x" * 256
STRANGE = {
    "x-good": "yes",
    "x-number": 7,
    "x-null": None,
    "x-list": ["a"],
    "x-split": "a\r\nx-evil: 1",
    "x-sly\r\nx-evil": "1",
    "x evil": "1",
    "": "nameless",
    "x-wide": "é",
    "content-length": "0",
    "ce-id": "forged",
}


def insert(database: Database, **columns: Any) -> None:
    """Insert a message by SQL, as any language would."""
    columns = {"id": str(uuid4()), "type": "page.read", "source": "sql", "data": '{"n": 0}', **columns}
    names, values = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    database.execute(f"INSERT INTO outbox_message ({names}) VALUES ({values})", **columns)


@pytest.mark.parametrize(
    ("refused_by", "column", "value"),
    [
        *(
            (TYPE, "type", bad)
            for bad in ("", " ", ".", "a.", ".a", "a..b", "_a", "a b", "a\nb", "a\r\nx-evil: 1", "é")
        ),
        *((TYPE, "type", bad) for bad in (LONG, "a.b\n", "a/b", "*")),
        *(("headers", "headers", bad) for bad in ("[]", '["a"]', "null", "7", '"x"')),
        ("source", "source", ""),
        *(("ordering_key", "ordering_key", bad) for bad in ("", LONG)),
        *(("state", "state", bad) for bad in ("", "done", "READY", LONG)),
        (DUE, "state", "scheduled"),
        (DUE, "due_at", "2030-01-01 12:00:00"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_is_malformed_is_refused(database: Database, refused_by: str, column: str, value: str) -> None:
    with pytest.raises(IntegrityError) as refused:
        insert(database, **{column: value})
    assert re.search(refused_by, str(refused.value.orig))
    assert database.scalar("SELECT count(*) FROM outbox_message") == 0


@pytest.mark.parametrize(
    "change", ["type = 'a b'", "source = ''", "headers = '[]'", "state = 'gone'", "state = 'scheduled'"]
)
def test_what_is_changed_is_checked_as_what_is_written(database: Database, change: str) -> None:
    insert(database)
    with pytest.raises(IntegrityError):
        database.execute(f"UPDATE outbox_message SET {change}")


def test_a_message_that_is_given_another_key_goes_to_the_shard_of_that_key(database: Database) -> None:
    """In another shard it would not be in order with the others of the key."""
    shards = "SELECT count(DISTINCT shard) FROM outbox_message"
    for key in "abcdefgh":
        insert(database, ordering_key=key)
    assert database.scalar(shards) > 1
    database.execute("UPDATE outbox_message SET ordering_key = 'a'")
    assert database.scalar(shards) == 1


def test_no_writer_can_choose_a_shard(postgres_database: Database) -> None:
    insert(postgres_database, ordering_key="a")
    for shard in (1, 2):
        insert(postgres_database, ordering_key="a", shard=shard)
    assert postgres_database.scalar("SELECT count(DISTINCT shard) FROM outbox_message") == 1


@pytest.mark.parametrize("data", ['{"n": [1e9000,   1e-9000]}', f'["{"x" * 100_000}"]'], ids=["short", "long"])
def test_the_size_of_a_message_is_that_of_what_a_relay_reads_of_it(postgres_database: Database, data: str) -> None:
    """These sizes limit what a relay reads to what fits into its memory; the table may hold it compressed."""
    insert(postgres_database, data=data, size=1)
    assert postgres_database.scalar("SELECT size FROM outbox_message") == len(data)


@pytest.mark.parametrize("data", ['{"b": 1.0,  "a":[1e2, "\\u00e9"], "b": 2}', ' \n{"a": 1}', "\t[1 ]\r\n"])
def test_what_was_written_is_kept_to_the_byte(database: Database, data: str) -> None:
    headers = '{"x-b": "1", "x-a": "2"}'
    insert(database, data=data, headers=headers)
    as_text = "CAST(data AS text) AS data, CAST(headers AS text) AS headers"
    assert database.rows(f"SELECT {as_text} FROM outbox_message") == [(data, headers)]


@pytest.mark.parametrize("column", ["data", "headers"])
@pytest.mark.parametrize("character", ["\\u0000", "\\ud800"], ids=["NUL", "half"])
def test_postgres_takes_no_escape_that_is_no_character(
    postgres_database: Database, column: str, character: str
) -> None:
    with pytest.raises(DBAPIError, match="Unicode"):
        insert(postgres_database, **{column: f'{{"text": "{character}"}}'})
    insert(postgres_database, **{column: '{"text": "\\\\u0000 \\ud83d\\ude00"}'})


def test_what_came_in_while_triggers_were_off_stops_no_relay(postgres_database: Database) -> None:
    """It is set aside and delivered like any other; its contents are not changed."""
    with postgres_database.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.execute(
            sa.text(
                "INSERT INTO outbox_message (id, type, source, data, shard, size) "
                "VALUES (:id, 'page.read', '', '{}', 7, 2)"
            ),
            {"id": ID},
        )
    postgres_database.execute("UPDATE outbox_message SET state = 'held'")
    for change in ("type = 'a b'", "state = 'gone'", "state = 'ready'"):
        with pytest.raises(IntegrityError):
            postgres_database.execute(f"UPDATE outbox_message SET {change}")


@pytest.mark.parametrize("table", ["outbox_message", "outbox_delivery"])
def test_what_replication_applies_is_found_by_the_transaction_that_applied_it(
    postgres_database: Database, table: str
) -> None:
    """Writes of a session in the replica role fire no ordinary trigger, and carry another cluster's transaction ids."""
    insert(postgres_database, ordering_key="a", id=ID)
    postgres_database.execute(
        "INSERT INTO outbox_delivery (message_id, destination, shard, position, ordering_key, state) "
        "SELECT id, 'a', shard, position, ordering_key, 'parked' FROM outbox_message"
    )
    shard = postgres_database.scalar("SELECT shard FROM outbox_message")
    with postgres_database.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql(f"UPDATE {table} SET txid = '3', shard = 63 - shard")
        mine = connection.exec_driver_sql("SELECT pg_current_xact_id()::text").scalar()
    (row,) = postgres_database.rows(f"SELECT txid::text AS txid, shard FROM {table}")
    assert (row.txid, row.shard) == (mine, shard)


def test_what_is_made_ready_by_hand_is_found_by_a_relay_that_has_read_past_it(postgres_database: Database) -> None:
    insert(postgres_database, due_at="2990-01-01Z", state="scheduled", txid="3", id=ID)
    assert postgres_database.scalar("SELECT txid::text FROM outbox_message") != "3"
    before = postgres_database.scalar("SELECT txid::text FROM outbox_message")
    postgres_database.execute("UPDATE outbox_message SET state = 'ready', due_at = NULL")
    assert postgres_database.scalar("SELECT txid::text FROM outbox_message") != before


def test_a_hosts_own_trigger_changes_nothing_that_was_checked(postgres_database: Database) -> None:
    postgres_database.execute(
        "CREATE FUNCTION set_key() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.ordering_key := 'theirs'; RETURN NEW; END $$"
    )
    postgres_database.execute(
        "CREATE TRIGGER set_key BEFORE INSERT ON outbox_message FOR EACH ROW EXECUTE FUNCTION set_key()"
    )
    for _ in range(8):
        insert(postgres_database)
    assert postgres_database.scalar("SELECT count(DISTINCT shard) FROM outbox_message") == 1


def test_a_role_cannot_slip_in_a_function_of_its_own(postgres_database: Database) -> None:
    """A role that may create in the schema cannot have its better matching function called with other rights."""
    for name, arguments in (
        ("length", "text"), ("json_typeof", "json"), ("hashtextextended", "text, integer"), ("octet_length", "text"),
        ("pg_notify", "text, name"), ("set_config", "text, text, boolean"), ("hashtext", "name"),
        ("to_char", "date, text"),
    ):  # fmt: skip
        postgres_database.execute(
            f"CREATE FUNCTION public.{name}({arguments}) RETURNS text LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE 'called'; END $$"
        )
    postgres_database.execute("SELECT setval('outbox_wake', 2)")
    with postgres_database.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        emit(connection, "page.read", {}, ordering_key="k")
    postgres_database.execute("SELECT outbox_add_partition(current_date + 5), outbox_drop_partition(current_date - 5)")
    assert postgres_database.scalar("SELECT count(*) FROM outbox_message") == 1


def test_postgres_names_what_it_refuses_and_the_remedy(postgres_database: Database) -> None:
    with pytest.raises(IntegrityError, match=r"outbox_message.type 'no type': write words of letters"):
        insert(postgres_database, type="no type")


@pytest.mark.parametrize("date", ["infinity", "-infinity", "9999-12-31 23:59:59Z", "20000-01-01 00:00:00Z"])
def test_postgres_takes_no_due_date_that_python_cannot_represent(postgres_database: Database, date: str) -> None:
    """Every operator's command would fail when it reads such a date."""
    with pytest.raises(DBAPIError, match=DUE):
        insert(postgres_database, due_at=date, state="scheduled")
    with pytest.raises(DBAPIError, match="expires_at"):
        insert(postgres_database, expires_at=date)


@pytest.mark.parametrize("date", ["infinity", "4000-01-01 BC", "9999-12-31 23:59:59Z", "290000-01-01"])
def test_postgres_takes_no_date_of_creation_that_python_cannot_represent(
    postgres_database: Database, date: str
) -> None:
    """With one such row, `status` and `doctor` used to say only that the database cannot be reached."""
    with pytest.raises(DBAPIError, match=CREATED):
        insert(postgres_database, created_at=date)


@pytest.mark.parametrize(
    "date",
    [
        "", "yesterday", "now", 1767225600, 2461000.5, b"2026-01-01 12:00:00", "99999-01-01 00:00:00",
        "2026-02-30 12:00:00", "0000-01-01 00:00:00", "2026-01-01T12:00:00Z", "2026-01-01 12:00:00+02:00",
        "2026-01-01 12:00:00z",
    ],
)  # fmt: skip
def test_sqlite_takes_no_date_of_creation_that_python_cannot_represent(sqlite_database: Database, date: Any) -> None:
    with pytest.raises(DBAPIError, match=f"{CREATED}|non-deterministic"):
        insert(sqlite_database, created_at=date)
    insert(sqlite_database, created_at="2026-01-01 12:00:00.123456")


@pytest.mark.parametrize("position", [0, -5])
def test_no_message_stands_before_the_first_where_no_relay_looks(database: Database, position: int) -> None:
    overriding = "OVERRIDING SYSTEM VALUE" if database.kind == "postgres" else ""
    with pytest.raises(DBAPIError, match="position"):
        database.execute(
            f"INSERT INTO outbox_message (id, position, type, source, data) {overriding} "
            "VALUES (:id, :position, 'page.read', 'sql', '{}')",
            id=ID,
            position=position,
        )


@pytest.mark.parametrize("number", ["zz", b"1", -5, 2**63 - 1])
def test_sqlite_takes_no_transaction_number_without_a_successor(sqlite_database: Database, number: Any) -> None:
    """Such a number ended every relay, and every command that writes."""
    with pytest.raises(DBAPIError, match="txid"):
        insert(sqlite_database, txid=number)


@pytest.mark.parametrize(
    "date",
    [
        "", "soon", "now", "2026-02-30 12:00:00", "2026-01-01", "2026-01-01T12:00:00", "2026-01-01 12:00:00Z",
        "2026-01-01 12:00:00+02:00", "2026-01-01 12:00:00-05:00", "2026-01-01 12:00:00.", "2026-01-01 25:00:00",
        "12:00:00", "2461000.5", "99999-01-01 00:00:00", "0000-01-01 00:00:00", "0001-12-31 12:00:00",
        "2026-01-01 24:00:00",
    ],
)  # fmt: skip
def test_sqlite_takes_one_way_to_write_a_date(sqlite_database: Database, date: str) -> None:
    """SQLite compares dates as text."""
    with pytest.raises(DBAPIError, match=f"{DATE}|non-deterministic"):
        insert(sqlite_database, due_at=date, state="scheduled")
    with pytest.raises(DBAPIError, match=r"expires_is_date|non-deterministic"):
        insert(sqlite_database, expires_at=date)
    for written in ("2026-01-01 12:00:00", "2026-01-01 12:00:00.123456"):
        insert(sqlite_database, due_at=written, state="scheduled")


DATES = {
    "outbox_delivery": ["due_at", "first_failed_at", "changed_at"],
    "outbox_destination": ["until", "disputed_at", "resumed_at", "removed_at", "since", "changed_at"],
    "outbox_relay": ["started_at", "last_seen_at"],
}


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in DATES for column in DATES[table]])
def test_no_table_takes_a_date_that_python_cannot_represent(database: Database, table: str, column: str) -> None:
    """An infinite one ended each session of the relay, or each `outbox status`."""
    refused = ["infinity", "-infinity", "9999-12-31 23:59:59Z", "0001-01-01 00:00:00Z"]
    if database.kind == "sqlite":
        refused = ["", "soon", "0000-01-01 00:00:00", "99999-01-01 00:00:00", "2026-02-30 12:00:00", "2461000.5"]
    for line in (
        "INSERT INTO outbox_delivery (message_id, destination, shard, position, state, due_at) "
        f"VALUES ('{ID}', 'a', 0, 1, 'retry', '2026-01-01 12:00:00')",
        "INSERT INTO outbox_destination (name, kind, events, generation) VALUES ('a', 'listener', '[]', 1)",
        "INSERT INTO outbox_relay (id, release) VALUES ('r', '0.1.0')",
    ):
        database.execute(line)
    database.execute(f"UPDATE {table} SET {column} = '2026-01-01 12:00:00'")
    for date in refused:
        with pytest.raises(DBAPIError, match=f"{table}_has_dates"):
            database.execute(f"UPDATE {table} SET {column} = '{date}'")


@pytest.mark.parametrize("column", ["source", "subject", "ordering_key", "headers", "data"])
def test_sqlite_takes_no_bytes_where_text_belongs(sqlite_database: Database, column: str) -> None:
    """One key of bytes ended each session of the relay as soon as any message had failed."""
    with pytest.raises(DBAPIError, match="CHECK"):
        insert(sqlite_database, **{column: b'{"a": "b"}'})


@pytest.mark.parametrize("id_", ["", "x", "0197c2f0", ID.replace("-", ""), ID.upper(), LONG])
def test_sqlite_takes_no_id_that_a_command_could_not_name(sqlite_database: Database, id_: str) -> None:
    with pytest.raises(DBAPIError, match="outbox_message_id_is_as_uuids_are_written"):
        insert(sqlite_database, id=id_)
    with pytest.raises(DBAPIError, match=TYPE):
        insert(sqlite_database, type="a.b\0c")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    type_=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,5}(\.[A-Za-z0-9_-]{1,5}){0,3}\Z"),
    due_at=st.none() | st.datetimes(timezones=st.timezones()),
)
def test_what_emit_takes_the_tables_take(database: Database, type_: str, due_at: Any) -> None:
    if due_at is not None and not 2 < due_at.year < 9998:
        return
    with database.engine.begin() as connection:
        id_ = emit(connection, type_, {}, due_at=due_at)
    assert database.scalar("SELECT type FROM outbox_message WHERE id = :id", id=id_) == type_


async def test_over_http_no_header_breaks_out_and_none_stops_a_message(database: Database) -> None:
    insert(database, headers=json.dumps(STRANGE), subject="\x1b]0;x\x07\r\nx-evil: 1", source="ß ?\n")
    insert(database)
    scene = Scene(database)
    async with Receiver() as receiver:
        http = HttpSettings(url=receiver.url, concurrency=1)
        async with Relay(scene.settings({"api": http})) as relay:
            assert (await relay.drain()).delivered == 2
    strange, plain = sorted(receiver.requests, key=lambda request: request.header("x-good") is None)
    assert (strange.header("x-good"), strange.header("x-number")) == ("yes", "7")
    assert strange.body == plain.body
    assert strange.header("ce-id") != "forged"
    assert {name.lower() for name, _ in strange.headers} - {name.lower() for name, _ in plain.headers} == {
        "x-good", "x-number", "x-null", "x-list", "x-split", "x-wide", "ce-subject"
    }  # fmt: skip


async def test_a_listener_is_given_what_was_written(database: Database) -> None:
    insert(database, headers=json.dumps(STRANGE), subject="\x1b]0;x\x07", source="ß?")
    assert await Scene(database).drain({"a": Taker()}) == 1


def test_an_operator_sees_text_that_is_not_utf8(sqlite_database: Database) -> None:
    sqlite_database.execute(
        "INSERT INTO outbox_message (id, type, source, data, subject) "
        f"VALUES ('{ID}', 'page.read', 'sql', '{{}}', CAST(x'61ff' AS TEXT))"
    )
    with opened_snapshot(Settings(database_url=sqlite_database.url)) as connection:
        assert connection.scalar(sa.text("SELECT subject FROM outbox_message")) == "a\ufffd"
