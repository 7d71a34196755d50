"""A database that stops to answer, behind a connection that stays open: the relay opens another session by itself."""

from contextlib import ExitStack

import pytest
from sqlalchemy import make_url
from support.databases import Database
from support.scene import Scene, Taker
from support.silence import Gate
from support.waiting import eventually_async

from relay.databases.migrations import upgrade
from relay.databases.postgresql.connections import answers


async def test_a_relay_whose_connections_are_silent_for_ever_opens_others(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "ANSWER_S", 2.0)  # of its periodic work, which delays its end
    scene = Scene(postgres_database)
    url = make_url(postgres_database.url)
    with ExitStack() as stack:
        gate = stack.enter_context(Gate.to(url.port or 5432))
        through = url.set(host="127.0.0.1", port=gate.port).render_as_string(hide_password=False)
        async with scene.relay({"a": Taker()}, lease_s=2, database_url=through):
            scene.emit()
            await scene.becomes(1, 0, 0, 0)
            with gate.shut():
                scene.emit()
            try:
                await scene.becomes(2, 0, 0, 0)
            except AssertionError:
                stack.close()  # a relay that waits for ever could not be stopped
                raise


async def test_a_server_that_answers_no_commit_keeps_one_session_of_a_relay(private_postgres) -> None:
    """Its synchronous standby is away. A backend that waits for a standby does not notice that its client has gone."""
    server = private_postgres()
    upgrade(server.url())
    database = Database("postgres", server.url())
    scene, seen = Scene(database), set()

    def has_one_session_after_others() -> bool:
        rows = database.rows("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'outbox relay%'")
        seen.update(row.pid for row in rows)
        return len(seen) > 2 and len(rows) == 1

    try:
        async with scene.relay({"a": Taker()}, lease_s=1):
            scene.emit()
            await scene.becomes(1, 0, 0, 0)
            set_standby(server, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            try:
                await eventually_async(has_one_session_after_others, deadline_s=90)
            finally:
                set_standby(server, "ALTER SYSTEM RESET synchronous_standby_names")
            scene.emit()
            await scene.becomes(2, 0, 0, 0)
    finally:
        database.dispose()


def set_standby(server, statement: str) -> None:
    with server.connect() as connection:
        connection.execute(statement)
        connection.execute("SELECT pg_reload_conf()")
