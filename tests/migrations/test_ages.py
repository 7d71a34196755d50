"""Schema and code of different ages: a permitted pair works, any other says which command to run."""

import asyncio
import shutil
import sys
from pathlib import Path
from threading import Event, Thread

import psycopg
import pytest
from support.databases import Database
from support.scene import Scene, Taker, failing
from support.waiting import eventually

from outbox.errors import SchemaError
from outbox_cli import main
from relay.databases import migrations
from relay.databases.database import Database as Target
from relay.databases.schema import SCHEMA_VERSION, verify_version

LATER_VERSION = SCHEMA_VERSION + 1
LATER = f"""
from alembic import op
revision, down_revision, branch_labels, depends_on = "outbox_0002", "outbox_0001", None, None
def upgrade():
    op.execute("ALTER TABLE outbox_message ADD COLUMN remark text")
    op.execute("UPDATE outbox_meta SET schema_version = {LATER_VERSION}")
"""


def migrate_later(database: Database, *, oldest: str = "0.1.0") -> None:
    """Migrate as a later release might, in a way unknown to this one."""
    for statement in (
        "ALTER TABLE outbox_message ADD COLUMN remark text",
        "ALTER TABLE outbox_delivery ADD COLUMN remark text",
        "ALTER TABLE outbox_history ADD COLUMN remark text",
        "ALTER TABLE outbox_destination ADD COLUMN remark text",
        "CREATE INDEX outbox_message_remark ON outbox_message (remark)",
        "UPDATE outbox_alembic_version SET version_num = 'outbox_0002' WHERE version_num = 'outbox_0001'",
        f"UPDATE outbox_meta SET schema_version = {LATER_VERSION}, oldest_release = '{oldest}'",
    ):
        database.execute(statement)


async def test_this_release_works_on_a_newer_schema_that_permits_it(database: Database) -> None:
    scene, taker = Scene(database), Taker(failing(3, times=1))
    scene.emit(5)
    migrate_later(database)
    scene.emit(5, ordering_key="k")
    scene.emit(1, delay=0.01)
    async with scene.relay({"a": taker}):
        await scene.becomes(11, 0, 0, 0)
    assert sorted(taker.taken) == list(range(11))


def test_an_upgrade_by_this_release_leaves_a_newer_schema_alone(database: Database) -> None:
    migrate_later(database)
    assert migrations.upgrade(database.url) == []
    assert migrations.upgrade(database.url, only="outbox") == []
    assert migrations.pending(Target.parse(database.url)) == []


@pytest.mark.parametrize(
    "command", [["relay", "--drain"], ["db", "check"], ["status"], ["db", "upgrade"]], ids=" ".join
)
def test_a_newer_schema_that_does_not_permit_this_release_says_so(
    database: Database, command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    migrate_later(database, oldest="9.0.0")
    assert "use release 9.0.0 or newer" in ended_with_3(database, command, monkeypatch, capfd)


def test_an_older_schema_says_which_command_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.databases.schema.SCHEMA_VERSION", LATER_VERSION)
    with pytest.raises(SchemaError, match="run `outbox db upgrade`"):
        verify_version(SCHEMA_VERSION, "0.1.0")


@pytest.mark.parametrize("command", [["relay", "--drain"], ["db", "check"], ["status"]], ids=" ".join)
def test_a_database_whose_tables_were_all_emptied_says_what_is_missing(
    database: Database, command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    database.execute("DELETE FROM outbox_meta")
    assert "INSERT INTO outbox_meta" in ended_with_3(database, command, monkeypatch, capfd)


async def test_a_relay_whose_schema_is_emptied_ends_and_says_so(database: Database) -> None:
    async with Scene(database).relay({"a": Taker()}) as relay:
        database.execute("DELETE FROM outbox_meta")
        with pytest.raises(SchemaError, match="INSERT INTO outbox_meta"):
            await asyncio.wait_for(relay.wait(), 20)


def ended_with_3(
    database: Database, command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setattr(sys, "argv", ["outbox", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr().err
    assert ended.value.code == 3, said
    assert "Traceback" not in said
    return said


async def test_a_running_relay_ends_in_order_when_a_migration_no_longer_permits_it(database: Database) -> None:
    scene, taker = Scene(database), Taker()
    with pytest.raises(SchemaError, match=r"use release 9\.0\.0 or newer"):  # noqa: PT012
        async with asyncio.timeout(20), scene.relay({"a": taker}) as relay:
            await relay.drain()
            migrate_later(database, oldest="9.0.0")
            await relay.wait()
    assert database.scalar("SELECT count(*) FROM outbox_shard WHERE dirty") == 0, "it handed back"


# ------------------------------------------------------------------------------------------------ while workers emit


@pytest.fixture
def later_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts of a release that has one more migration."""
    directory = tmp_path / "scripts"
    shutil.copytree(migrations.scripts(), directory, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "versions" / "outbox_0002.py").write_text(LATER)
    monkeypatch.setattr(migrations, "scripts", lambda: directory)


class Emitter(Thread):
    """A worker that emits one message after the other."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.count, self.is_over = 0, Event()
        self._url = database.url

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self.is_over.is_set():
                connection.execute("SELECT outbox_emit('page.read', '{}')")
                self.count += 1


def test_a_migration_that_waits_for_a_lock_holds_emitters_up_for_no_longer_than_its_timeout(
    postgres_database: Database, later_release: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_S", 0.4)
    monkeypatch.setattr(migrations, "LOCK_PAUSE_S", 0.2)
    monkeypatch.setattr(migrations, "LOCK_TRIES", 1_000)
    done: list[list[str]] = []
    emitter = Emitter(postgres_database)
    upgrade = Thread(target=lambda: done.append(migrations.upgrade(postgres_database.url)))
    with psycopg.connect(postgres_database.url) as reader:
        reader.execute("SELECT count(*) FROM outbox_message")  # and does not end its transaction
        emitter.start()
        upgrade.start()
        for _ in range(3):  # each try holds the emitter up
            eventually(lambda: waiting(postgres_database) == 2, what="the emitter waits behind the migration")
            count = emitter.count
            eventually(lambda count=count: emitter.count > count + 5, what="it gets on")
        assert upgrade.is_alive()
    upgrade.join(20)
    emitter.is_over.set()
    emitter.join(20)
    assert done == [["outbox_0002"]]


def waiting(database: Database) -> int:
    return database.scalar(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'outbox_message'::regclass "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )


def test_a_migration_gives_up_with_a_sentence_when_the_lock_is_never_released(
    postgres_database: Database, later_release: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LOCK_TIMEOUT_S", 0.05), ("LOCK_PAUSE_S", 0.01), ("LOCK_TRIES", 3)):
        monkeypatch.setattr(migrations, name, value)
    with psycopg.connect(postgres_database.url) as reader:
        reader.execute("SELECT count(*) FROM outbox_message")
        with pytest.raises(SchemaError, match=r"3 tries of 0\.05 s; see pg_stat_activity"):
            migrations.upgrade(postgres_database.url)
    assert migrations.upgrade(postgres_database.url) == ["outbox_0002"]
