"""A row that a host's constraint or trigger refuses holds up no other row, and is not sent again without an end."""

from collections.abc import Callable
from typing import Any

import pytest
from support.commands import Run, runner
from support.databases import Database
from support.scene import Scene, Taker, failing, rejecting, to
from support.waiting import eventually_async

from outbox import Message

REFUSING = {
    "postgres": """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF {condition} THEN RAISE EXCEPTION 'the host says no'; END IF;
            RETURN coalesce(NEW, OLD);
        END $$;
        CREATE TRIGGER host BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()""",
    "sqlite": """
        CREATE TRIGGER host BEFORE {event} ON {table} WHEN {condition}
        BEGIN SELECT RAISE(ABORT, 'the host says no'); END""",
}
BAD = 3


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capfd)


def refuse(database: Database, event: str, table: str, condition: str) -> None:
    """Have a trigger of the host refuse rows."""
    written = REFUSING[database.kind].format(event=event, table=table, condition=condition)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(written)


def allow(database: Database, table: str) -> None:
    """Remove the trigger, also while a relay writes."""
    with database.engine.begin() as connection:
        if database.kind == "postgres":
            connection.exec_driver_sql("LOCK TABLE outbox_message")  # all writers lock it first: no deadlock
        connection.exec_driver_sql("DROP TRIGGER host" + (f" ON {table}" if database.kind == "postgres" else ""))


def subject_is(row: str) -> str:
    return f"{row}.subject = 'bad'"


def emit_around_a_bad_one(scene: Scene, **options: Any) -> None:
    scene.emit(BAD, **options)
    scene.emit(1, subject="bad", **options)
    scene.emit(BAD, **options)


REFUSALS = {
    "history": ("INSERT", "outbox_history", subject_is("NEW")),
    "message": ("DELETE", "outbox_message", subject_is("OLD")),
}


@pytest.mark.parametrize("where", REFUSALS)
@pytest.mark.parametrize(
    ("fate", "attempts"),
    [(lambda: rejecting(), 1), (lambda: rejecting(BAD + 1), 1), (lambda: failing(BAD, times=1), 2)],
    ids=["taken", "beside a dead letter", "retried"],
)
async def test_the_others_are_settled_and_it_is_finished_when_that_is_possible(
    database: Database, where: str, fate: Callable[[], Callable[[Message], None]], attempts: int
) -> None:
    scene, taker = Scene(database), Taker(fate())
    refuse(database, *REFUSALS[where])
    emit_around_a_bad_one(scene, ordering_key="k")
    async with scene.relay({"a": to(taker, on_dead="skip")}) as relay:
        await eventually_async(lambda: len(open_rows(database)) == 1)
        await relay.drain()
        (row,) = open_rows(database)
        assert (row.state, "the host says no" in row.reason) == ("delivered", True)
        dead = scene.status.dead
        assert database.scalar("SELECT count(*) FROM outbox_history") == 2 * BAD - dead
        allow(database, REFUSALS[where][1])
        await eventually_async(lambda: open_rows(database) == [])
    assert database.scalar("SELECT count(*) FROM outbox_history") == 2 * BAD + 1 - dead
    assert taker.tries == dict.fromkeys(range(2 * BAD + 1), 1) | {BAD: attempts}


def open_rows(database: Database) -> list[Any]:
    return database.rows("SELECT message_id, state, reason FROM outbox_delivery WHERE state <> 'dead'")


async def test_the_reason_shows_the_constraint_and_no_values_of_the_row(postgres_database: Database) -> None:
    scene = Scene(postgres_database)
    postgres_database.execute("ALTER TABLE outbox_history ADD CONSTRAINT host_says_no CHECK (subject <> 'bad')")
    emit_around_a_bad_one(scene)
    async with scene.relay({"a": Taker()}):
        await eventually_async(lambda: len(open_rows(postgres_database)) == 1)
    (row,) = open_rows(postgres_database)
    assert "host_says_no" in row.reason
    assert "pad" not in row.reason


async def test_what_a_trigger_refuses_altogether_is_sent_once(database: Database) -> None:
    scene, taker = Scene(database), Taker()
    refuse(database, "INSERT", "outbox_history", "TRUE")
    scene.emit(200)
    async with scene.relay({"a": taker, "b": Taker()}) as relay:
        await eventually_async(lambda: len(open_rows(database)) == 400)
        await relay.drain()
        allow(database, "outbox_history")
        await eventually_async(lambda: database.scalar("SELECT count(*) FROM outbox_history") == 200)
    assert set(taker.tries.values()) == {1}


async def test_what_can_neither_be_settled_nor_set_aside_is_left_to_the_next_session(database: Database) -> None:
    scene, taker = Scene(database), Taker(rejecting(BAD, BAD + 1))
    refuse(database, "INSERT", "outbox_delivery", f"NEW.position = {BAD + 1}")
    emit_around_a_bad_one(scene)
    async with scene.relay({"a": taker}) as relay:
        await scene.becomes(2 * BAD - 1, 1, 1, 0)
        await relay.drain()
    assert set(taker.tries.values()) == {1}
    allow(database, "outbox_delivery")
    await scene.drain({"a": taker})
    assert scene.account == (2 * BAD - 1, 0, 2, 0)


async def test_an_unrouted_message_that_cannot_be_set_aside_holds_up_no_other(database: Database) -> None:
    scene, taker = Scene(database), Taker()
    refuse(database, "UPDATE", "outbox_message", subject_is("OLD"))
    emit_around_a_bad_one(scene, type="other.thing")
    scene.emit(2)
    await scene.drain({"a": to(taker, events=["page.*"])})
    assert scene.account == (2, 1, 0, 2 * BAD)
    assert len(taker.attempts) == 2


async def test_a_discarded_delivery_is_finished_when_that_is_possible(database: Database, run: Run) -> None:
    scene, taker = Scene(database), Taker(rejecting(BAD))
    emit_around_a_bad_one(scene)
    await scene.drain({"a": taker})
    refuse(database, *REFUSALS["history"])
    assert run("dead", "discard", "--all", "--yes", url=database.url).returncode == 0
    async with scene.relay({"a": taker}):
        await eventually_async(lambda: len(open_rows(database)) == 1)
        allow(database, "outbox_history")
        await eventually_async(lambda: open_rows(database) == [])
