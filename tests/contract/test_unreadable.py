"""A message that cannot be read is a dead letter with the reason, and its neighbours are delivered."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from support.commands import Run, runner
from support.databases import Database, PostgresDatabases
from support.desk import Desk, everything, ids, ruling
from support.postgres import PostgresServer
from support.scene import Scene, Taker, to
from support.waiting import eventually_async

from outbox import Message, Reject
from relay.databases.migrations import upgrade
from relay.databases.store.records import Batch
from relay.decide.shared_state import Finding

BAD = "0197c0de-0000-7000-8000-000000000bad"
COLUMNS = ["subject", "source", "ordering_key", "headers", "data"]


@pytest.fixture(params=["sqlite", "SQL_ASCII", "WIN1252"])
def odd(
    request: pytest.FixtureRequest, postgres_databases: PostgresDatabases, sqlite_database: Database
) -> Iterator[Database]:
    """A database that can hold text that is not UTF-8."""
    if request.param == "sqlite":
        yield sqlite_database
        return
    name = postgres_databases.create(encoding=request.param)
    database = Database("postgres", postgres_databases.url(name) + "?client_encoding=utf8")
    try:
        upgrade(database.url)
        yield database
    finally:
        database.dispose()
        postgres_databases.retire(name)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capfd)


def write_unreadable(database: Database, column: str = "subject", **more: str) -> None:
    """Write text as a tool does that ignores encodings."""
    written = "CAST(x'62ff64' AS TEXT)"
    if database.kind == "postgres":
        encoding = database.scalar("SHOW server_encoding")
        written = f"'b' || chr({255 if encoding == 'SQL_ASCII' else 129}) || 'd'"  # WIN1252 has no 0x81
    if column in ("data", "headers"):
        written = f"'{{\"text\": \"' || {written} || '\"}}'"
        written = f"({written})::jsonb" if database.kind == "postgres" else written
    values = {"id": f"'{BAD}'", "type": "'page.read'", "source": "'sql'", "data": "'{}'", **more, column: written}
    statement = f"INSERT INTO outbox_message ({', '.join(values)}) VALUES ({', '.join(values.values())})"
    with database.engine.begin() as connection:
        connection.exec_driver_sql(statement.replace("%", "%%"))


async def test_text_that_the_database_has_no_characters_for_is_escaped(odd: Database) -> None:
    scene = Scene(odd)
    written = {0: "caf\u00e9", 1: "a \u2192 b", 2: "\U0001f600"}

    def fate(message: Message) -> None:
        raise Reject(written[message.data["n"]])

    scene.emit(3)
    desk = Desk(odd)
    await scene.drain({"a": Taker(fate)})
    session = desk.owner()
    session.ownership.report(replace(Finding("a", "paused"), reason=written[1]))
    session.ownership.report(replace(Finding("a", "healthy"), note=written[2]))
    session.close()
    reasons = [row.reason for row in odd.rows("SELECT reason FROM outbox_delivery ORDER BY position")]
    assert [each.rpartition(": ")[2] for each in reasons] in (
        list(written.values()),
        [r"caf\xe9", r"a \u2192 b", r"\U0001f600"],
    )


def dead(database: Database) -> list[tuple[str, str, str]]:
    rows = database.rows("SELECT message_id, destination, state, reason FROM outbox_delivery ORDER BY destination")
    assert {row.state for row in rows} <= {"dead"}
    return [(str(row.message_id), row.destination, row.reason) for row in rows]


@pytest.mark.parametrize("column", COLUMNS)
async def test_what_cannot_be_read_is_dead_and_its_neighbours_are_delivered(odd: Database, column: str) -> None:
    scene, taker, other = Scene(odd), Taker(), Taker()
    scene.emit(3)
    write_unreadable(odd, column)
    scene.emit(3)
    await scene.drain({"a": taker, "b": other})
    assert sorted(taker.taken) == sorted(other.taken) == list(range(6))
    found = dead(odd)
    assert [each[:2] for each in found] == [(BAD, "a"), (BAD, "b")]
    assert all("cannot be read" in reason for *_, reason in found)


async def test_a_running_relay_goes_on_beside_what_comes_late_and_cannot_be_read(odd: Database) -> None:
    scene, taker = Scene(odd), Taker()
    async with scene.relay({"a": taker}):
        scene.emit(2)
        await eventually_async(lambda: len(taker.taken) == 2)
        write_unreadable(odd)
        scene.emit(2)
        await eventually_async(lambda: len(taker.taken) == 4)
        await eventually_async(lambda: len(dead(odd)) == 1)


async def test_an_unreadable_message_without_a_subscription_is_unrouted(odd: Database) -> None:
    scene, taker = Scene(odd), Taker()
    write_unreadable(odd, type="'other.thing'")
    scene.emit(2, type="page.read")
    await scene.drain({"a": to(taker, events=["page.*"])})
    assert (len(taker.taken), dead(odd)) == (2, [])
    assert odd.scalar("SELECT state FROM outbox_message") == "unrouted"


async def test_successors_of_its_key_wait_behind_it_as_behind_any_dead_letter(odd: Database) -> None:
    scene, taker = Scene(odd), Taker()
    write_unreadable(odd, ordering_key="'k'")
    scene.emit(2, ordering_key="k")
    scene.emit(2, ordering_key="other")
    await scene.drain({"a": taker})
    assert sorted(taker.taken) == [2, 3]


def test_every_way_of_reading_knows_what_it_could_not_read(odd: Database) -> None:
    desk = Desk(odd)
    good = desk.emit(2)
    write_unreadable(odd)
    session = desk.owner()
    try:
        cursors = everything()
        assert sorted(ids(session.reading.read_ready(cursors, 10).messages)) == sorted([*good, BAD])
        assert list(session.reading.unreadable) == [BAD]
        session.reading.unreadable.clear()
        desk.put_back(BAD)
        assert ids(session.reading.read_ready(cursors, 10).messages) == [BAD], "it comes late"
        assert list(session.reading.unreadable) == [BAD]
        for state, read in (
            ("parked", lambda: session.reading.read_parked(everything_read(), ["a"], 10)),
            ("retry", lambda: session.reading.read_due(list(range(64)), 10).deliveries),
        ):
            session.reading.unreadable.clear()
            settle_again(session, state)
            if state == "retry":
                desk.make_due(BAD)
                session.reading.reread_due()
            assert ids(read()) == [BAD], state
            assert list(session.reading.unreadable) == [BAD], state
    finally:
        session.close()


def settle_again(session: Any, state: str) -> None:
    """Settle a message that was read as ready, in its second generation, and is held by now."""
    messages = [(BAD, 1)] if state == "parked" else []
    session.settling.settle(Batch(messages, [ruling(BAD, "a", state)]))


def test_what_was_scheduled_is_known_to_be_unreadable_when_it_is_due(odd: Database) -> None:
    desk = Desk(odd)
    write_unreadable(odd, state="'scheduled'", due_at="'2020-01-01 00:00:00'")
    session = desk.owner()
    try:
        assert ids(session.reading.read_due(list(range(64)), 10).messages) == [BAD]
        assert list(session.reading.unreadable) == [BAD]
    finally:
        session.close()


def everything_read():  # type: ignore[no-untyped-def]
    cursors = everything()
    cursors.exhausted.update(cursors.ready)
    return cursors


async def test_operators_see_it_retry_it_and_discard_it(odd: Database, run: Run) -> None:
    scene, taker = Scene(odd), Taker()
    write_unreadable(odd, "data", subject="'s'")
    await scene.drain({"a": taker})
    listed = run("dead", "list", "--json", url=odd.url)
    assert (listed.returncode, "cannot be read" in listed.stdout) == (0, True), listed.report()
    for command in (["dead", "show", BAD], ["messages", "show", BAD], ["messages", "list"], ["doctor"]):
        shown = run(*command, url=odd.url)
        assert shown.returncode in (0, 4), shown.report()
        assert "Traceback" not in shown.stderr, shown.report()
    assert run("dead", "retry", BAD, url=odd.url).returncode == 0
    await scene.drain({"a": taker})
    assert [each[:2] for each in dead(odd)] == [(BAD, "a")]
    assert run("dead", "discard", BAD, "--yes", url=odd.url).returncode == 0
    await scene.drain({"a": taker})
    assert dead(odd) == []
    assert json.loads(run("status", "--json", url=odd.url).stdout)["dead"] == 0


async def test_what_the_disk_has_lost_stays_where_it_is_and_its_neighbours_are_delivered(
    private_postgres: type[PostgresServer],
) -> None:
    server = private_postgres()
    database = Database("postgres", server.url())
    upgrade(database.url)
    scene, taker = Scene(database), Taker()
    database.execute("ALTER TABLE outbox_message ALTER COLUMN data SET STORAGE EXTERNAL")
    database.execute(
        "INSERT INTO outbox_message (id, type, source, data) VALUES "
        "(:id, 'page.read', 'sql', jsonb_build_object('text', repeat('x', 20000)))",
        id=BAD,
    )
    lose_what_lies_apart(database)
    scene.emit(3)
    await scene.drain({"a": taker})
    assert sorted(taker.taken) == [0, 1, 2]
    assert database.rows("SELECT id::text, state FROM outbox_message") == [(BAD, "ready")]
    database.dispose()


def lose_what_lies_apart(database: Database) -> None:
    """Remove the table's large values, as if the disk had lost them."""
    toast = "SELECT reltoastrelid FROM pg_class WHERE oid = 'outbox_message'::regclass"
    with database.engine.begin() as connection:
        connection.execute(sa.text("SET allow_system_table_mods = on"))
        connection.execute(sa.text(f"UPDATE pg_class SET relkind = 'r' WHERE oid = ({toast})"))
        name = connection.scalar(sa.text(f"SELECT ({toast})::regclass::text"))
        connection.execute(sa.text(f"DELETE FROM {name}"))
        connection.execute(sa.text(f"UPDATE pg_class SET relkind = 't' WHERE oid = ({toast})"))
