"""A login of the same database without rights on the outbox stops nothing by its locks or objects."""

import asyncio
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from threading import Thread
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import make_url
from structlog.testing import capture_logs
from support.databases import Database, PostgresDatabases
from support.desk import ALL, Desk, take
from support.housekeeping import housekeeping_with
from support.scene import Scene, Taker
from support.waiting import eventually

from outbox import emit
from outbox.errors import SchemaError
from outbox_cli import main
from relay import Settings
from relay.admin.destinations.registration import Registration, register
from relay.admin.doctor import Finding, examine
from relay.databases import migrations
from relay.databases.database import Database as Address
from relay.databases.postgresql import migration as migration_turn
from relay.databases.store.contract import Lost

CLASS = "hashtext('public.outbox_message')"
Stranger = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def role(postgres_databases: PostgresDatabases) -> Iterator[str]:
    """A login without any rights; roles belong to the server."""
    admin = Database("postgres", postgres_databases.url("postgres"))
    name = f"stranger_{secrets.token_hex(4)}"
    admin.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    with suppress(sa.exc.DBAPIError):  # a database that is about to be dropped still names it
        admin.execute(f"DROP ROLE {name}")
    admin.dispose()


@pytest.fixture
def stranger(postgres_database: Database, role: str) -> Iterator[Stranger]:
    with closing(_connect(postgres_database, role)) as connection:
        yield connection


@pytest.fixture
def desk(postgres_database: Database) -> Iterator[Desk]:
    with Desk(postgres_database) as desk:
        yield desk


@pytest.fixture
def may_create(postgres_database: Database, role: str) -> None:
    """Grant CREATE in `public`, which every role has before PostgreSQL 15."""
    postgres_database.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
    postgres_database.execute(f"GRANT SELECT ON outbox_history TO {role}")  # for CREATE TABLE … LIKE
    postgres_database.execute("CREATE TABLE spied (data jsonb, as_role text)")
    postgres_database.execute("GRANT INSERT ON spied TO public")


def _connect(database: Database, role: str) -> Stranger:
    url = make_url(database.url).set(username=role).render_as_string(hide_password=False)
    return psycopg.connect(url, autocommit=True, application_name="a stranger")


# ------------------------------------------------------------------------------------------------ shards


def test_two_relays_that_take_the_same_shards_at_once_own_each_of_them_once(desk: Desk) -> None:
    """The rows change after the second statement has begun, in the transaction that it waits for."""
    first, second = desk.open("one"), desk.open("two")
    with closing(psycopg.connect(desk.database.url)) as between:
        between.execute("SELECT FROM outbox_shard FOR UPDATE")
        found: list[list[int]] = []
        takers = [Thread(target=lambda s=s: found.append(take(s, ALL))) for s in (first, second)]
        for taker in takers:
            taker.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        eventually(lambda: desk.database.scalar(waiting) == 2)
    for taker in takers:
        taker.join(timeout=30)
    assert sorted(found) == [[], list(ALL)]


@pytest.mark.parametrize(
    "change", ["UPDATE outbox_shard SET relay = NULL, owner = NULL WHERE shard = 3", "DELETE FROM outbox_shard"]
)
def test_a_relay_whose_rows_were_reset_by_hand_ends_its_session_at_the_next_beat(desk: Desk, change: str) -> None:
    session = desk.owner("one")
    desk.database.execute(change)
    with pytest.raises(Lost, match="do not name it any more"):
        session.ownership.beat(list(ALL), 0)
    session.close()
    desk.owner("one")  # takes all shards: rows that are gone are there again


def test_a_row_that_names_another_relay_of_the_same_number_keeps_no_shard_from_being_owned(desk: Desk) -> None:
    """A restore or logical replication carries rows and leaves sequences behind, which causes this."""
    following = desk.open("one").ownership._number + 1
    desk.database.execute("UPDATE outbox_shard SET relay = :number", number=following)
    assert desk.open("two").ownership._number == following
    desk.owner("three")


def test_a_stranger_cannot_keep_a_relay_from_registering(desk: Desk, stranger: Stranger) -> None:
    """Presence locks used to have consecutive numbers, which a stranger could lock in advance."""
    stranger.execute(f"SELECT pg_advisory_lock({CLASS}, n) FROM generate_series(0, 1000) AS n")
    session = desk.owner("one")
    assert set(session.ownership.beat(list(ALL), 0).wants_of) == {session.ownership._number}


def test_a_stranger_that_takes_the_presence_of_a_relay_that_ended_is_no_relay(desk: Desk, stranger: Stranger) -> None:
    first, second = desk.owner("one"), desk.open("two")
    presence = desk.database.scalar("SELECT presence FROM outbox_relay WHERE number = :n", n=first.ownership._number)
    first.connection.bare.close()  # not in order: its row stays
    stranger.execute(f"SELECT pg_advisory_lock({CLASS}, {presence})")
    assert set(second.ownership.beat([], 0).wants_of) == {second.ownership._number}
    assert take(second, ALL) == list(ALL)


async def test_messages_are_delivered_while_a_stranger_holds_what_it_can(
    postgres_database: Database, stranger: Stranger
) -> None:
    scene, taker = Scene(postgres_database), Taker()
    stranger.execute(f"SELECT pg_advisory_lock({CLASS}, n) FROM generate_series(0, 1000) AS n")
    async with asyncio.timeout(60):
        scene.emit(20)
        assert await scene.drain({"a": taker}) == 20


# ------------------------------------------------------------------------------------------------ other locks


def test_a_stranger_holds_up_neither_registration_nor_housekeeping_nor_partitions(
    postgres_database: Database, stranger: Stranger
) -> None:
    """Each of these once used an advisory lock; now they lock tables, on which a stranger has no right."""
    stranger.execute("SELECT pg_advisory_lock(x'6F757472656769'::bigint)")
    stranger.execute("SELECT pg_advisory_lock(x'6F757468'::int, hashtext('public'))")
    stranger.execute("SELECT pg_advisory_lock(hashtext('outbox_history'), hashtext('public'))")
    for table in ("outbox_destination", "outbox_relay", "outbox_history", "outbox_shard"):
        with pytest.raises(InsufficientPrivilege):
            stranger.execute(f"DO $$ BEGIN LOCK TABLE {table} IN ROW SHARE MODE; END $$")
    settings = Settings(database_url=postgres_database.url)
    assert register(settings.database, [Registration("a", "listener", ["*"], "block")]) == 1
    postgres_database.execute("INSERT INTO outbox_relay (id, release, last_seen_at) VALUES ('gone', '0', '2020-01-01')")
    keeper = housekeeping_with(settings)
    keeper._run(keeper.remove_traces)
    keeper._engine.dispose()
    assert postgres_database.scalar("SELECT count(*) FROM outbox_relay") == 0
    postgres_database.execute("SELECT outbox_add_partition('2020-02-02')")


def test_two_relays_do_not_keep_house_at_once(postgres_database: Database) -> None:
    keeper = housekeeping_with(Settings(database_url=postgres_database.url))
    postgres_database.execute("INSERT INTO outbox_relay (id, release, last_seen_at) VALUES ('gone', '0', '2020-01-01')")
    with postgres_database.engine.connect() as other, other.begin():
        assert keeper._is_mine(other)
        keeper._run(keeper.remove_traces)
        assert postgres_database.scalar("SELECT count(*) FROM outbox_relay") == 1
    keeper._run(keeper.remove_traces)
    keeper._engine.dispose()
    assert postgres_database.scalar("SELECT count(*) FROM outbox_relay") == 0


def test_an_upgrade_gives_up_on_a_stranger_and_names_it(
    postgres_database: Database, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration_turn, "PATIENCE_S", 0.3)
    stranger.execute(f"SELECT pg_advisory_lock({migration_turn.MIGRATION_LOCK})")
    pid = stranger.info.backend_pid
    with pytest.raises(SchemaError) as error:
        migrations.upgrade(postgres_database.url)
    said = str(error.value)
    assert f"SELECT pg_terminate_backend({pid})" in said
    assert f"role {stranger.info.user}, a stranger" in said
    postgres_database.execute(f"SELECT pg_terminate_backend({pid})")
    eventually(lambda: migrations.upgrade(postgres_database.url) == [])


# ------------------------------------------------------------------------------------------------ what doctor says


def examined(database: Database) -> dict[str, Finding]:
    return {each.check: each for each in examine(database.engine, lease_s=15, older_than_s=300)}


def test_doctor_names_who_holds_the_lock_of_migrations_and_the_statement_that_ends_it(
    postgres_database: Database, stranger: Stranger
) -> None:
    assert examined(postgres_database)["locks"].severity == "ok"
    stranger.execute(f"SELECT pg_advisory_lock({migration_turn.MIGRATION_LOCK})")
    found = examined(postgres_database)["locks"]
    assert found.severity == "note"
    assert f"pid {stranger.info.backend_pid} (role {stranger.info.user}, a stranger)" in found.what
    assert f"SELECT pg_terminate_backend({stranger.info.backend_pid})" in found.what


@pytest.mark.usefixtures("may_create")
def test_doctor_names_who_else_may_create_in_our_schema(postgres_database: Database, role: str) -> None:
    postgres_database.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    found = examined(postgres_database)["schema rights"]
    assert found.severity == "bad"
    assert f"PUBLIC, {role} may CREATE in the schema public" in found.what
    statement = found.do.partition(";")[0]
    assert statement == f"REVOKE CREATE ON SCHEMA public FROM PUBLIC, {role}"
    postgres_database.execute(statement)
    assert examined(postgres_database)["schema rights"].severity == "ok"


@pytest.mark.usefixtures("may_create")
def test_an_upgrade_warns_of_who_else_may_create_in_our_schema(
    postgres_database: Database, role: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_database.url)
    monkeypatch.setattr(sys, "argv", ["outbox", "db", "upgrade"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = " ".join(capfd.readouterr().err.split())
    assert ended.value.code == 0, said
    assert f"warning: {role} may CREATE in the schema public" in said
    assert f"REVOKE CREATE ON SCHEMA public FROM {role}" in said


def test_a_first_upgrade_refuses_a_schema_in_which_a_role_was_granted_create(
    empty_postgres: Database, role: str
) -> None:
    empty_postgres.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
    address = Address.parse(empty_postgres.url)
    for refused in (lambda: migrations.upgrade(empty_postgres.url), lambda: migrations.planned(address)):
        with pytest.raises(SchemaError, match=f"{role} may CREATE in the schema public") as error:
            refused()
    assert empty_postgres.scalar("SELECT to_regclass('outbox_message')") is None
    statement = str(error.value).partition("Run ")[2].partition(";")[0]
    empty_postgres.execute(statement)
    assert migrations.upgrade(empty_postgres.url)
    empty_postgres.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
    assert migrations.upgrade(empty_postgres.url) == [], "an installed outbox is never kept from an upgrade"


def test_a_schema_of_ours_in_which_every_role_may_create_is_refused(empty_postgres: Database) -> None:
    empty_postgres.execute("CREATE SCHEMA messaging")
    empty_postgres.execute("GRANT CREATE ON SCHEMA messaging TO PUBLIC")
    with pytest.raises(SchemaError, match="PUBLIC may CREATE in the schema messaging"):
        migrations.upgrade(empty_postgres.url, schema="messaging")


def test_an_upgrade_warns_of_the_default_rights_of_postgresql_14_and_leaves_them(
    empty_postgres: Database, role: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    empty_postgres.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    monkeypatch.setenv("DATABASE_URL", empty_postgres.url)
    monkeypatch.setattr(sys, "argv", ["outbox", "db", "upgrade"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = " ".join(capfd.readouterr().err.split())
    assert ended.value.code == 0, said
    assert "warning: PUBLIC may CREATE in the schema public" in said
    assert "REVOKE CREATE ON SCHEMA public FROM PUBLIC" in said
    assert empty_postgres.scalar(f"SELECT has_schema_privilege('{role}', 'public', 'CREATE')")


def test_a_role_that_may_become_the_owner_may_create(empty_postgres: Database, role: str) -> None:
    empty_postgres.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
    owner = empty_postgres.scalar("SELECT current_user")
    empty_postgres.execute(f'GRANT "{owner}" TO {role}')
    try:
        assert migrations.upgrade(empty_postgres.url)
    finally:
        empty_postgres.execute(f'REVOKE "{owner}" FROM {role}')


@pytest.mark.usefixtures("may_create")
def test_doctor_names_what_took_the_name_of_a_partition(postgres_database: Database, stranger: Stranger) -> None:
    assert "names" not in examined(postgres_database)
    stranger.execute("CREATE VIEW outbox_history_20300102 AS SELECT 1 AS one")
    assert f"outbox_history_20300102 (owned by {stranger.info.user})" in examined(postgres_database)["names"].what


# ---------------------------------------------------------------------------------------------- strict order


def test_a_stranger_cannot_hold_up_a_key_that_is_emitted_in_strict_order(
    postgres_database: Database, stranger: Stranger
) -> None:
    for refused in (
        "SELECT outbox_take_turns('{k}')",
        "SELECT FROM outbox_turn FOR UPDATE",
        "DO $$ BEGIN LOCK TABLE outbox_turn IN EXCLUSIVE MODE; END $$",
        "INSERT INTO outbox_turn VALUES (-1)",
    ):
        with pytest.raises(InsufficientPrivilege):
            stranger.execute(refused)
    stranger.execute("SELECT pg_advisory_lock(hashtextextended('k', x'6F7574626F78'::bigint))")  # once used
    with postgres_database.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
        emit(connection, "page.read", {}, ordering_key="k", strict_order=True)
    assert postgres_database.scalar("SELECT count(*) FROM outbox_message") == 1


# ------------------------------------------------------------------------------------------------ partitions

DAY = "outbox_history_20300102"


def partition_of_the_day(database: Database) -> Any:
    return database.rows(
        "SELECT c.relname, pg_get_userbyid(c.relowner) = pg_get_userbyid(h.relowner) AS is_ours FROM pg_class AS h "
        "JOIN pg_inherits AS i ON i.inhparent = h.oid JOIN pg_class AS c ON c.oid = i.inhrelid "
        f"WHERE h.oid = 'outbox_history'::regclass AND c.relname LIKE '{DAY}%'"
    )


def spying_table(connection: Stranger) -> None:
    connection.execute(f"CREATE TABLE {DAY} (LIKE outbox_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    connection.execute(
        "CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO spied VALUES (NEW.data, current_user); RETURN NEW; END $$"
    )
    connection.execute(f"CREATE TRIGGER spy BEFORE INSERT ON {DAY} FOR EACH ROW EXECUTE FUNCTION spy()")


STRANGE: list[Callable[[Stranger], object]] = [
    spying_table,
    lambda connection: connection.execute(f"CREATE VIEW {DAY} AS SELECT 1 AS one"),
    lambda connection: connection.execute(f"CREATE TYPE {DAY} AS ENUM ('a')"),
    lambda connection: connection.execute(f"CREATE SEQUENCE {DAY}"),
    lambda connection: connection.execute(
        f"CREATE TABLE mine (n int) PARTITION BY RANGE (n); CREATE TABLE {DAY} PARTITION OF mine DEFAULT"
    ),
]


@pytest.mark.usefixtures("may_create")
@pytest.mark.parametrize("make", STRANGE, ids=["a table that spies", "a view", "a type", "a sequence", "a partition"])
def test_what_a_stranger_made_under_the_name_of_a_partition_is_left_alone_and_the_day_has_one(
    postgres_database: Database, stranger: Stranger, make: Callable[[Stranger], object]
) -> None:
    make(stranger)
    for _ in range(2):  # the second call finds the first one's partition
        postgres_database.execute("SELECT outbox_add_partition('2030-01-02')")
    (made,) = partition_of_the_day(postgres_database)
    assert made.is_ours
    postgres_database.execute(
        "INSERT INTO outbox_history (id, delivered_at, position, type, source, data, headers, created_at, attempts) "
        "VALUES (gen_random_uuid(), '2030-01-02Z', 1, 'a', 'b', '{}', '{}', now(), 1)"
    )
    assert postgres_database.scalar("SELECT count(*) FROM spied") == 0
    assert postgres_database.scalar(f"SELECT count(*) FROM {made.relname}") == 1


HANGING = {
    "a trigger": f"CREATE TRIGGER t BEFORE INSERT ON {DAY} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_"
    "trigger()",
    "a rule": f"CREATE RULE r AS ON INSERT TO {DAY} DO ALSO INSERT INTO spied VALUES (NEW.data, current_user)",
    "a policy": f"CREATE POLICY p ON {DAY}",
    "row security": f"ALTER TABLE {DAY} ENABLE ROW LEVEL SECURITY",
}


@pytest.mark.usefixtures("may_create")
@pytest.mark.parametrize("statement", HANGING.values(), ids=HANGING.keys())
def test_a_table_of_ours_that_something_hangs_on_is_not_attached_again(
    postgres_database: Database, statement: str
) -> None:
    postgres_database.execute("SELECT outbox_add_partition('2030-01-02')")
    postgres_database.execute(f"ALTER TABLE outbox_history DETACH PARTITION {DAY}")
    postgres_database.execute(statement.replace("BEFORE INSERT", "BEFORE UPDATE"))
    postgres_database.execute("SELECT outbox_add_partition('2030-01-02')")
    (made,) = partition_of_the_day(postgres_database)
    assert made.relname != DAY


@pytest.mark.usefixtures("may_create")
def test_retention_drops_no_table_of_a_stranger(postgres_database: Database, stranger: Stranger) -> None:
    """The owner of our tables may be a superuser, who could drop it."""
    stranger.execute("CREATE TABLE outbox_history_20200202 (precious text)")
    postgres_database.execute("SELECT outbox_add_partition('2020-02-02')")
    keeper = housekeeping_with(Settings(database_url=postgres_database.url))
    with capture_logs() as said:
        keeper.delete_history()
    keeper._engine.dispose()
    assert [record["event"] for record in said] == ["history_dropped"]
    left = postgres_database.rows("SELECT relname FROM pg_class WHERE relname LIKE 'outbox_history_20200202%'")
    assert [row.relname for row in left] == ["outbox_history_20200202"]
