"""In a host's database: the host's Alembic history is not affected, and two outboxes do not affect each other."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from support.databases import Database
from support.scene import Scene, Taker, to
from support.waiting import eventually_async

from outbox import Outbox
from relay import Relay
from relay.admin.access.queries import snapshot
from relay.admin.status import status
from relay.databases import migrations
from relay.databases.database import Database as Address
from relay.databases.postgresql.connections.engines import conninfo
from relay.owner.startup import open_store

ENV = """
import os
import sqlalchemy as sa
from alembic import context
from outbox.tables import include_name

metadata = sa.MetaData()
sa.Table("invoices", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("amount", sa.Integer))
with sa.create_engine(os.environ["HOST_URL"]).connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, include_name=include_name)
    with context.begin_transaction():
        context.run_migrations()
"""
FIRST = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "host_1", None, None, None
def upgrade():
    op.create_table("invoices", sa.Column("id", sa.Integer, primary_key=True), sa.Column("amount", sa.Integer))
def downgrade():
    op.drop_table("invoices")
"""
Alembic = Callable[..., str]


@pytest.fixture
def alembic(empty_database: Database, tmp_path: Path) -> Alembic:
    """A host application's `alembic`, run as its developer does."""
    host = tmp_path / "host"
    (host / "versions").mkdir(parents=True)
    (host / "env.py").write_text(ENV)
    (host / "versions" / "host_1.py").write_text(FIRST)
    (tmp_path / "alembic.ini").write_text(f"[alembic]\nscript_location = {host}\npath_separator = os\n")
    driver = "postgresql+psycopg" if empty_database.kind == "postgres" else "sqlite+pysqlite"
    url = sa.make_url(empty_database.url).set(drivername=driver).render_as_string(hide_password=False)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=tmp_path,
            env={**os.environ, "HOST_URL": url},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_a_hosts_own_history_is_untouched_before_and_after_ours(empty_database: Database, alembic: Alembic) -> None:
    alembic("upgrade", "head")
    assert "No new upgrade operations detected" in alembic("check")
    migrations.upgrade(empty_database.url, only="outbox")
    assert "No new upgrade operations detected" in alembic("check")
    alembic("upgrade", "head")
    assert empty_database.rows("SELECT version_num FROM alembic_version") == [("host_1",)]
    assert empty_database.rows("SELECT version_num FROM outbox_alembic_version") == [("outbox_0001",)]
    assert migrations.upgrade(empty_database.url, only="outbox") == []


HOSTS_INBOX = """
sa.Table("inbox_message", metadata, sa.Column("id", sa.Integer, primary_key=True))
with sa.create_engine"""


@pytest.mark.parametrize("empty_database", ["postgres"], indirect=True)
def test_a_hosts_own_inbox_message_stays_visible_to_it_beside_an_outbox_in_another_schema(
    empty_database: Database, alembic: Alembic, tmp_path: Path
) -> None:
    """Otherwise its autogenerate would create the table again."""
    env = tmp_path / "host" / "env.py"
    env.write_text(env.read_text().replace("with sa.create_engine", HOSTS_INBOX.lstrip(), 1))
    alembic("upgrade", "head")
    empty_database.execute("CREATE TABLE inbox_message (id integer PRIMARY KEY)")
    migrations.upgrade(empty_database.url, schema="messaging", only="outbox")
    assert "No new upgrade operations detected" in alembic("check")


# ------------------------------------------------------------------------------------------------ two outboxes


@pytest.fixture
def two(empty_postgres: Database) -> Database:
    """One database with an outbox in each of two schemas."""
    for schema in ("one", "two"):
        migrations.upgrade(empty_postgres.url, schema=schema, only="outbox")
    return empty_postgres


async def test_two_outboxes_in_one_database_know_nothing_of_each_other(two: Database) -> None:
    scene, takers = Scene(two), {"one": Taker(), "two": Taker()}
    settings = {schema: scene.settings({"a": to(taker)}, schema_name=schema) for schema, taker in takers.items()}
    async with Relay(settings["one"]) as first, Relay(settings["two"]) as second:
        await eventually_async(lambda: (first.health().owns, second.health().owns) == (64, 64))
        for schema, numbers in (("one", range(10)), ("two", range(100, 105))):
            with two.engine.begin() as connection:
                outbox = Outbox(schema=schema)
                for n in numbers:
                    outbox.emit(connection, "page.read", {"n": n}, ordering_key="same", strict_order=True)
        await eventually_async(lambda: (len(takers["one"].taken), len(takers["two"].taken)) == (10, 5))
        assert takers["one"].taken == list(range(10))
        assert takers["two"].taken == list(range(100, 105))
        for schema, count in (("one", 10), ("two", 5)):
            engine = settings[schema].database.engine()

            def is_told(engine: sa.Engine = engine, count: int = count) -> bool:
                with snapshot(engine) as connection:
                    found = status(connection)
                assert (found.delivered, found.waiting, len(found.relays)) == (count, 0, 1)
                return found.relays[0].shards == list(range(64))

            await eventually_async(is_told)
            engine.dispose()


def test_a_notification_wakes_the_relay_of_its_own_schema_alone(two: Database) -> None:
    settings = Scene(two).settings({}, schema_name="two")
    session = open_store(settings).open("listens")
    try:
        wake_read, wake_write = os.pipe()
        with psycopg.connect(conninfo(Address.parse(two.url).url), autocommit=True) as other:
            other.execute("SELECT pg_notify('outbox_wake', 'one')")
            assert not session.waking.wait(0.2, wake_read)
            other.execute("SELECT pg_notify('outbox_wake', 'two')")
            assert session.waking.wait(30, wake_read)
        os.close(wake_read)
        os.close(wake_write)
    finally:
        session.close()
