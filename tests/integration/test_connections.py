"""Roles, databases and the environment have their own defaults: no connection of ours depends on them."""

import json

import pytest
import sqlalchemy as sa
from sqlalchemy import make_url
from support.commands import Run
from support.databases import Database, PostgresDatabases

from relay.admin.access.opening import opened_snapshot
from relay.admin.status import status
from relay.databases.database import Database as Address
from relay.databases.postgresql.store.session import PostgresStore
from relay.settings import Settings

HOSTILE = {
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kolkata",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "default_transaction_read_only": "on",
    "client_encoding": "LATIN1",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_nestloop": "off",
    "idle_session_timeout": "10s",
    "statement_timeout": "60000",
}
ENVIRONMENT = {"PGCLIENTENCODING": "LATIN1", "PGDATESTYLE": "Postgres, DMY", "PGTZ": "Asia/Kolkata"}
PRINTER = """
import json
def on_completed(message):
    print(json.dumps([message.data, message.subject, message.created_at.isoformat()]), flush=True)
"""


@pytest.fixture
def hostile(postgres_database: Database) -> Database:
    """Return a database in which every session begins with unusual settings."""
    name = make_url(postgres_database.url).database
    for setting, value in HOSTILE.items():
        postgres_database.execute(f"ALTER DATABASE \"{name}\" SET {setting} = '{value}'")
    return postgres_database


def emitted(database: Database) -> None:
    database.execute(
        "INSERT INTO outbox_message (id, type, source, subject, data, created_at) VALUES "
        "('0197c0de-0000-7000-8000-000000000001', 'extraction.completed', 'sql', 'für 5 €', "
        "'{\"contentId\": \"€ 日本\"}', '2026-03-02T04:05:06Z')"
    )


def delivered(stdout: str) -> list[object]:
    return [json.loads(line) for line in stdout.splitlines() if line.startswith("[")]


def test_a_relay_and_every_command_work_with_any_session_defaults(
    hostile: Database, run: Run, relay: Run, printer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("printing_listener.py", "w") as file:
        file.write(PRINTER)
    emitted(hostile)
    ended = relay("--drain", url=hostile.url, **ENVIRONMENT)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    assert delivered(ended.stdout) == [[{"contentId": "€ 日本"}, "für 5 €", "2026-03-02T04:05:06+00:00"]]
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for command in (
        ["status"],
        ["doctor"],
        ["messages", "list"],
        ["dead", "list"],
        ["audit"],
        ["destinations", "list"],
    ):
        found = run(*command, url=hostile.url)
        assert found.returncode in (0, 4), found.stderr
        assert "Traceback" not in found.stderr
    assert json.loads(run("status", "--json", url=hostile.url).stdout)["delivered"] == 1


def test_an_owning_session_has_the_settings_that_it_relies_on(hostile: Database) -> None:
    store = PostgresStore(Address.parse(hostile.url), lease_s=15, keep_history=True, notify=True)
    session = store.open("me")
    try:
        found = {name: session.connection.one(f"SELECT current_setting('{name}')") for name in HOSTILE}
    finally:
        session.close()
    assert found == {
        "DateStyle": "ISO, DMY",
        "IntervalStyle": "postgres",
        "TimeZone": "UTC",
        "extra_float_digits": "1",
        "bytea_output": "hex",
        "standard_conforming_strings": "on",
        "array_nulls": "on",
        "default_transaction_isolation": "read committed",
        "default_transaction_deferrable": "off",
        "default_transaction_read_only": "off",
        "client_encoding": "UTF8",
        "enable_indexscan": "on",
        "enable_indexonlyscan": "on",
        "enable_nestloop": "on",
        "idle_session_timeout": "15s",
        "statement_timeout": "15s",
    }


@pytest.mark.parametrize("way", ["engine", "listener_engine"])
def test_an_engine_has_the_settings_that_it_relies_on_and_a_listener_keeps_its_time_zone(
    hostile: Database, way: str
) -> None:
    engine = getattr(Address.parse(hostile.url), way)()
    is_ours = way == "engine"
    with engine.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("DateStyle", "TimeZone", "transaction_isolation", "transaction_read_only", "client_encoding")
        }
    engine.dispose()
    assert found == {
        "DateStyle": "ISO, DMY",
        "TimeZone": "UTC" if is_ours else "Asia/Kolkata",
        "transaction_isolation": "read committed" if is_ours else "serializable",
        "transaction_read_only": "off",
        "client_encoding": "UTF8",
    }


@pytest.mark.parametrize("schema", [None, "Messaging"])
def test_options_in_the_url_hold_beside_the_schema(postgres_database: Database, schema: str | None) -> None:
    database = Address.parse(postgres_database.url + "?options=-c%20work_mem%3D12345kB", schema=schema)
    store = PostgresStore(database, lease_s=15, keep_history=True, notify=True)
    with store._connect("me") as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("12345kB",)
    engine = database.engine()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW work_mem").scalar() == "12345kB"
        assert (connection.exec_driver_sql("SHOW search_path").scalar() == '"Messaging"') == (schema is not None)
    engine.dispose()


def test_a_url_with_several_hosts_reaches_the_one_that_answers(
    postgres_database: Database, relay: Run, run: Run, printer: None
) -> None:
    url = make_url(postgres_database.url)
    several = f"postgresql://{url.username}@/{url.database}?host=127.0.0.1:1&host={url.host}:{url.port}"
    assert run("status", url=several).returncode == 0
    ended = relay("--drain", url=several)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_in_another_encoding_works(
    postgres_databases: PostgresDatabases, run: Run, relay: Run, printer: None, encoding: str
) -> None:
    name = postgres_databases.create(encoding=encoding)
    try:
        url = postgres_databases.url(name)
        assert run("db", "upgrade", url=url).returncode == 0
        assert run("emit", "extraction.completed", '{"contentId": "für"}', url=url).returncode == 0
        ended = relay("--drain", url=url)
        assert ended.returncode == 0, ended.stderr
        assert "took für" in ended.stdout
        assert json.loads(run("status", "--json", url=url).stdout)["delivered"] == 1
        assert run("messages", "list", "--state", "delivered", "--json", url=url).returncode == 0
    finally:
        postgres_databases.retire(name)


def test_a_look_at_the_outbox_takes_one_connection(database: Database):
    """Each one costs a login, and on PostgreSQL a process of the server."""
    made: list[object] = []

    def note(*_: object) -> None:
        made.append(None)

    sa.event.listen(sa.Engine, "do_connect", note)
    try:
        with opened_snapshot(Settings(database_url=database.url)) as connection:
            assert status(connection).waiting == 0
    finally:
        sa.event.remove(sa.Engine, "do_connect", note)
    assert len(made) == 1
