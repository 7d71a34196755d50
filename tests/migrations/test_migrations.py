"""The migrations: they make what the models say, they go both ways, and twenty at a time do no harm."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects.postgresql.base import ischema_names
from support.databases import Database

from listeners.tables import ContentBase
from outbox.errors import SchemaError
from outbox.tables import VERSION_TABLE, include_name, is_outbox_table, tables
from outbox.writing.dialects.postgresql.dialect import Xid8
from relay.databases import migrations
from relay.databases.database import Database as Target
from relay.databases.schema import verify_version

REVISIONS = ["content_0001", "outbox_0001"]


def _names(database: Database) -> set[str]:
    return set(sa.inspect(database.engine).get_table_names())


def _differences(database: Database, metadata: list[sa.MetaData], **options: Any) -> list[Any]:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, **options})
        return compare_metadata(context, metadata)


def test_the_models_say_what_the_migrations_make(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ischema_names, "xid8", Xid8)

    def is_modelled(name: str | None, type_: str, _parents: Any) -> bool:
        return not (type_ == "table" and name is not None and name.startswith("outbox_history_"))

    found = _differences(database, [tables().metadata, ContentBase.metadata], include_name=is_modelled)
    assert [difference for difference in found if difference[0] != "remove_index"] == []  # migrations alone have them


def test_up_down_and_up_again_leaves_nothing_behind_and_nothing_out(empty_database: Database) -> None:
    assert migrations.upgrade(empty_database.url) == REVISIONS
    made = _names(empty_database)
    empty_database.downgrade(*migrations.BRANCHES)
    assert _names(empty_database) <= {VERSION_TABLE, "sqlite_sequence"}
    assert migrations.upgrade(empty_database.url) == REVISIONS
    assert _names(empty_database) == made


def test_a_second_upgrade_has_nothing_to_do(database: Database) -> None:
    assert migrations.upgrade(database.url) == []
    assert migrations.pending(Target.parse(database.url)) == []


def test_only_the_outbox_leaves_no_content_table(empty_database: Database) -> None:
    assert migrations.upgrade(empty_database.url, only="outbox") == ["outbox_0001"]
    assert _names(empty_database).isdisjoint({"contents", "extractions", "topic_graphs"})


def test_of_twenty_upgrades_at_once_one_works_and_the_others_wait(empty_database: Database) -> None:
    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(lambda _: migrations.upgrade(empty_database.url), range(20)))
    assert sorted(done) == [[]] * 19 + [REVISIONS]


def test_of_several_processes_at_once_all_succeed(empty_postgres: Database) -> None:
    command = [
        sys.executable,
        "-c",
        f"from relay.databases.migrations import upgrade; print(upgrade({empty_postgres.url!r}))",
    ]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = sorted(process.communicate(timeout=60)[0].strip() for process in running)
    assert [process.returncode for process in running] == [0, 0, 0]
    assert said == [str(REVISIONS), "[]", "[]"]


def test_the_printed_sql_makes_the_same_tables(empty_database: Database) -> None:
    script = migrations.sql("postgresql" if empty_database.kind == "postgres" else "sqlite")
    connection = empty_database.engine.raw_connection()
    try:
        if empty_database.kind == "postgres":
            connection.cursor().execute(script)
        else:
            connection.driver_connection.executescript(script)  # type: ignore[union-attr]
        connection.commit()
    finally:
        connection.close()
    assert _names(empty_database) >= {*tables().metadata.tables, *ContentBase.metadata.tables, VERSION_TABLE}
    assert migrations.upgrade(empty_database.url) == []


@pytest.mark.parametrize("schema", [None, "messaging", 'mess"aging'])
def test_the_printed_sql_can_be_part_of_a_host_s_revision(empty_postgres: Database, schema: str | None) -> None:
    """The SQL leaves the host's transaction open, and the host's tables are resolved as before."""
    script = migrations.sql(only="outbox", schema=schema)
    assert "leave out BEGIN and COMMIT" in script
    ours = re.sub(r"^(BEGIN|COMMIT);$", "", script, flags=re.MULTILINE)
    with empty_postgres.engine.connect() as connection:
        for end in (connection.rollback, connection.commit):
            connection.exec_driver_sql("CREATE TABLE host (id int)")
            path = connection.exec_driver_sql("SHOW search_path").scalar()
            connection.execute(sa.text(ours))
            assert connection.exec_driver_sql("SHOW search_path").scalar() == path
            assert connection.exec_driver_sql("SELECT count(*) FROM host").scalar() == 0
            end()
    names = set(sa.inspect(empty_postgres.engine).get_table_names(schema=schema))
    assert {*tables().metadata.tables, VERSION_TABLE} <= names
    assert schema is None or "outbox_message" not in _names(empty_postgres)


def test_sqlite_ignores_a_schema() -> None:
    assert migrations.sql("sqlite", schema="messaging") == migrations.sql("sqlite")


def test_a_host_s_autogenerate_sees_nothing_of_ours(database: Database) -> None:
    host = sa.MetaData()
    sa.Table("invoices", host, sa.Column("id", sa.Integer, primary_key=True))
    host.create_all(database.engine)
    content = {"contents", "extractions", "topic_graphs"}  # a separate branch, which a host may leave out

    def ours_hidden(name: str | None, type_: str, parents: Any) -> bool:
        return include_name(name, type_, parents) and name not in content

    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": ours_hidden})
        assert compare_metadata(context, host) == []


def test_a_host_s_version_table_is_left_alone(database: Database) -> None:
    assert "alembic_version" not in _names(database)
    assert is_outbox_table(VERSION_TABLE)


def test_a_second_outbox_lives_in_a_schema_of_its_own(postgres_database: Database) -> None:
    assert migrations.upgrade(postgres_database.url, schema="second", only="outbox") == ["outbox_0001"]
    names = set(sa.inspect(postgres_database.engine).get_table_names(schema="second"))
    assert {"outbox_message", VERSION_TABLE} <= names
    postgres_database.execute("SELECT second.outbox_emit('a.b', '{}')")
    assert postgres_database.scalar("SELECT count(*) FROM second.outbox_message") == 1
    assert postgres_database.scalar("SELECT count(*) FROM outbox_message") == 0


def test_a_foreign_table_of_that_name_is_refused_by_name_with_nothing_half_made(empty_database: Database) -> None:
    empty_database.execute("CREATE TABLE topic_graphs (id integer)")
    with pytest.raises(SchemaError, match="topic_graphs"):
        migrations.upgrade(empty_database.url)
    assert _names(empty_database) == {"topic_graphs"}


@pytest.mark.parametrize(
    ("version", "oldest", "told"),
    [(0, "0.1.0", "outbox db upgrade"), (2, "9.0.0", "use release 9.0.0 or newer")],
)
def test_a_schema_of_another_age_says_which_command_to_run(version: int, oldest: str, told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        verify_version(version, oldest)


def test_a_newer_schema_that_permits_this_release_is_fine() -> None:
    verify_version(2, "0.1.0")
