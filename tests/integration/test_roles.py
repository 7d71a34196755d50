"""Three roles with the rights that `outbox db grants` prints: the core works, and a missing right is named."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import make_url
from structlog.testing import capture_logs
from support.commands import Run, runner
from support.databases import Database, PostgresDatabases
from support.desk import take
from support.housekeeping import housekeeping_with
from support.scene import Outage, Scene, Taker, failing, rejecting, to
from support.waiting import eventually_async

from outbox import Outbox, Reject
from outbox.errors import Unusable
from relay import ListenerSettings, Relay, Settings
from relay.admin.access.queries import snapshot
from relay.admin.audit import Action, record
from relay.admin.destinations.listing import list_destinations, pause, resume
from relay.admin.doctor import examine
from relay.admin.grants import grants
from relay.admin.messages.dead import DeadFilter, discard, retry
from relay.admin.status import status
from relay.databases import rights
from relay.databases.database import Database as Address
from relay.databases.postgresql.store.session import PostgresStore
from relay.databases.rights import Right
from relay.databases.store.contract import ANY_GENERATION
from relay.platform.guide import BASELINE_LISTENER

SCHEMA = "messaging"


@dataclass
class Roles:
    """One database with an outbox in a separate schema, as its owner and each of the three roles sees it."""

    owner: Database
    migrator: Database
    worker: Database
    relay: Database

    def role(self, database: Database) -> str:
        return str(make_url(database.url).username)

    def revoke(self, right: Right, database: Database) -> None:
        on = right.on(SCHEMA)
        if right.kind == "FUNCTION" or right.name == "outbox_wake":  # PUBLIC has it by default
            self.owner.execute(f"REVOKE {', '.join(right.privileges)} ON {on} FROM PUBLIC")
        self.owner.execute(f"REVOKE {', '.join(right.privileges)} ON {on} FROM {self.role(database)}")

    def settings(self, database: Database, **options: Any) -> Settings:
        return Scene(database).settings(options.pop("destinations", {}), schema_name=SCHEMA, **options)


@pytest.fixture(scope="module")
def template(postgres_databases: PostgresDatabases) -> Iterator[str]:
    """A database whose schema the migrator has made, with the printed rights granted. Roles belong to the server."""
    name = postgres_databases.create()
    owner = Database("postgres", postgres_databases.url(name))
    names = {kind: f"{name}_{kind}" for kind in ("migrator", "worker", "relay")}
    for role in names.values():
        owner.execute(f"CREATE ROLE {role} LOGIN")
    owner.execute(f"CREATE SCHEMA {SCHEMA}")
    before, after = _printed(names)
    owner.execute(before)
    from relay.databases.migrations import upgrade

    upgrade(_as(owner, names["migrator"]).url, schema=SCHEMA)
    owner.execute(after)
    owner.dispose()
    yield name
    admin = Database("postgres", postgres_databases.url("postgres"))
    with admin.sync_engine(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        for role in names.values():
            with suppress(sa.exc.DBAPIError):  # a database that is about to be dropped still names it
                connection.exec_driver_sql(f"DROP ROLE {role}")
    admin.dispose()


def _printed(names: dict[str, str]) -> tuple[str, str]:
    before, after = grants(schema=SCHEMA, **names).split("\n\n", 1)
    return before, after


@pytest.fixture
def roles(postgres_databases: PostgresDatabases, template: str) -> Iterator[Roles]:
    name = postgres_databases.create(template)
    owner = Database("postgres", postgres_databases.url(name))
    found = Roles(owner, *(_as(owner, f"{template}_{kind}") for kind in ("migrator", "worker", "relay")))
    yield found
    for database in (found.owner, found.migrator, found.worker, found.relay):
        database.dispose()
    postgres_databases.retire(name)


def _as(database: Database, role: str) -> Database:
    return Database("postgres", make_url(database.url).set(username=role).render_as_string(hide_password=False))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs one command in this process."""
    command = runner(monkeypatch, capfd)
    return lambda database, *arguments: command(*arguments, url=database.url, OUTBOX_SCHEMA=SCHEMA)


def singles(needs: tuple[Right, ...]) -> list[Right]:
    """Return the rights with one privilege each."""
    return [replace(right, privileges=(privilege,)) for right in needs for privilege in right.privileges]


def name_of(right: Right) -> str:
    return f"{right.privileges[0]} {right.name.partition('(')[0] or right.kind}"


def assert_named(said: str, right: Right, role: str) -> None:
    """Assert that the text names what is missing, and what to run."""
    assert f"the role {role} lacks {right.what} on {right.on(SCHEMA)}" in said
    assert right.grant(SCHEMA, role) in said
    assert "outbox db grants" in said


# ------------------------------------------------------------------------------------------------ the core


async def test_the_core_works_as_three_roles_with_what_is_printed(roles: Roles) -> None:
    worker, outbox = roles.worker.engine, Outbox(schema=SCHEMA)
    with worker.begin() as connection:
        for n in range(6):
            outbox.emit(connection, "page.read", {"n": n}, ordering_key=f"k{n % 2}")
        outbox.emit(connection, "page.unwanted", {"n": 6})
    with worker.begin() as connection:
        assert connection.scalar(
            sa.text(f"SELECT {SCHEMA}.outbox_emit('page.read', '{{\"n\": 7}}', due_at => now() - interval '1 s')")
        )
        assert outbox.once(connection, "reports", "m-1")
    engine = roles.settings(roles.relay).database.engine()
    outage = Outage()
    takers = {
        "refuses": Taker(rejecting(1)),
        "fails": Taker(failing(2, times=1)),
        "down": Taker(outage),
    }
    destinations = {name: to(taker, events=["page.read"], on_dead="skip") for name, taker in takers.items()}
    async with Relay(roles.settings(roles.relay, destinations=destinations)) as relay:
        await relay.drain()
        outage.down = False
        resume(engine, "down")
        await _becomes(engine, lambda found: (found.delivered, found.dead, found.unrouted) == (6, 1, 1))
        pause(engine, "fails", reason="a release")
        with worker.begin() as connection:
            outbox.emit(connection, "page.read", {"n": 8})
        await _becomes(engine, lambda found: found.destinations["fails"].waiting == 1)
        resume(engine, "fails")
        takers["refuses"].fate = lambda message: None
        assert retry(engine, DeadFilter()) == 1
        await _becomes(engine, lambda found: (found.delivered, found.waiting, found.dead) == (8, 0, 0))
        assert {each.severity for each in examine(engine, lease_s=15, older_than_s=300)} <= {"ok", "note", "bad"}
        assert discard(engine, DeadFilter()) == 0
        with engine.connect() as connection:
            assert {each.name for each in list_destinations(connection)} == set(takers)
    keeper = housekeeping_with(roles.settings(roles.relay, retention_days=1))
    with engine.begin() as connection:
        for job in (keeper.add_partitions, keeper.remove_traces, keeper.forget_inbox_marks):
            job(connection)
    roles.owner.execute(f"SELECT {SCHEMA}.outbox_add_partition('2020-02-02')")
    keeper.delete_history()
    keeper._engine.dispose()
    assert roles.owner.scalar(f"SELECT to_regclass('{SCHEMA}.outbox_history_20200202')") is None
    engine.dispose()


def test_the_commands_work_as_three_roles_with_what_is_printed(roles: Roles, run: Run, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("The outbox commits results and messages. Relays deliver messages. " * 20)
    assert run(roles.worker, "extract", str(tmp_path / "one.txt")).returncode == 0
    assert run(roles.worker, "emit", "extraction.completed", '{"contentId": "x"}').returncode == 0
    drained = run(roles.relay, "relay", "--drain", "--apply")
    assert (drained.returncode, "left: 1 for baseline: dead letters" in drained.stderr) == (4, True), drained.stderr
    for command in (["status"], ["db", "check"], ["content", "missing"], ["audit"]):
        ended = run(roles.relay, *command)
        assert ended.returncode == 0, ended.stderr
    assert run(roles.relay, "replay", "--to", "baseline", "--since", "1d", "--yes").returncode == 0
    assert run(roles.worker, "emit", "extraction.completed", '{"contentId": "y"}').returncode == 0
    assert "cancelled 2 messages" in run(roles.relay, "cancel", "--all", "--yes").stderr
    assert roles.owner.scalar(f"SELECT count(*) FROM {SCHEMA}.topic_graphs") == 1
    assert run(roles.migrator, "db", "upgrade").returncode == 0


async def _becomes(engine: sa.Engine, is_so: Callable[[Any], bool]) -> None:
    def look() -> bool:
        with snapshot(engine) as connection:
            found = status(connection)
        assert is_so(found), found
        return True

    await eventually_async(look)


def test_a_worker_may_not_remove_history(roles: Roles) -> None:
    with pytest.raises(sa.exc.DBAPIError, match="permission denied for function outbox_drop_partition"):
        roles.worker.execute(f"SELECT {SCHEMA}.outbox_drop_partition('2020-02-02')")


COLUMNS = {
    "position": "1",
    "generation": "7",
    "created_at": "'2020-01-01'",
    "txid": "'3'",
    "shard": "0",
    "size": "1",
}


@pytest.mark.parametrize(("column", "value"), COLUMNS.items(), ids=COLUMNS)
def test_a_worker_may_not_write_the_columns_that_the_database_sets(roles: Roles, column: str, value: str) -> None:
    with pytest.raises(sa.exc.DBAPIError, match="permission denied for table outbox_message"):
        roles.worker.execute(
            f"INSERT INTO {SCHEMA}.outbox_message (id, type, source, data, {column}) OVERRIDING SYSTEM VALUE "
            f"VALUES (gen_random_uuid(), 'page.read', 'sql', '{{}}', {value})"
        )


def test_a_consumer_may_not_set_the_time_of_its_mark(roles: Roles) -> None:
    """A mark with an old time would be deleted at once, and its message taken again."""
    with pytest.raises(sa.exc.DBAPIError, match="permission denied for table inbox_message"):
        roles.worker.execute(
            f"INSERT INTO {SCHEMA}.inbox_message (listener, message_id, done_at) VALUES ('a', 'b', '2020-01-01')"
        )


INSERT = f"INSERT INTO {SCHEMA}.outbox_message (id, type, source, data, state, due_at) VALUES "


@pytest.mark.parametrize("state", ["held", "unrouted"])
def test_a_worker_may_not_write_a_message_that_no_relay_would_read(roles: Roles, state: str) -> None:
    values = f"(gen_random_uuid(), 'page.read', 'sql', '{{}}', '{state}', NULL)"
    with pytest.raises(sa.exc.DBAPIError, match=f"outbox_message.state '{state}': write nothing, or scheduled"):
        roles.worker.execute(INSERT + values)
    roles.relay.execute(INSERT + values)


def test_a_worker_may_schedule_in_sql_what_it_writes(roles: Roles) -> None:
    roles.worker.execute(INSERT + "(gen_random_uuid(), 'page.read', 'sql', '{}', 'scheduled', now())")
    assert roles.owner.scalar(f"SELECT state FROM {SCHEMA}.outbox_message") == "scheduled"


def test_a_worker_emits_every_kind_of_message_one_by_one_and_many_at_once(roles: Roles) -> None:
    outbox = Outbox(schema=SCHEMA)
    every: dict[str, Any] = {"ordering_key": "k", "subject": "s", "headers": {"a": "b"}}
    with roles.worker.engine.begin() as connection:
        outbox.emit(connection, "page.read", {}, **every, delay=60)
        outbox.emit_many(connection, [("page.read", {"n": n}) for n in range(3)])
        outbox.emit(connection, "page.read", {}, **every, strict_order=True, expires_in=60)
    assert roles.owner.scalar(f"SELECT count(*) FROM {SCHEMA}.outbox_message") == 5


def test_a_relay_adds_to_the_audit_and_changes_nothing_in_it(roles: Roles) -> None:
    engine = roles.settings(roles.relay).database.engine()
    with engine.begin() as connection:
        action = Action("dead retry", {}, reason="a test")
        first = action.add(connection, 500)
        assert action.add(connection, 50) == first
        Action("replay", {}).add(connection, 3)
        found = record(connection, limit=10)
    assert [(each.action, each.count) for each in found] == [("replay", 3), ("dead retry", 550)]
    assert {each.role for each in found} == {roles.role(roles.relay)}
    engine.dispose()
    for statement in (
        "UPDATE outbox_audit SET actor = 'ada'",
        "UPDATE outbox_audit SET count = 0",
        "DELETE FROM outbox_audit",
        "INSERT INTO outbox_audit (actor, action, target, count, role) VALUES ('a', 'b', '{}', 1, 'ada')",
        "INSERT INTO outbox_audit (actor, action, target, count, at) VALUES ('a', 'b', '{}', 1, '2020-01-01')",
    ):
        with pytest.raises(sa.exc.DBAPIError, match="permission denied for table outbox_audit"):
            roles.relay.execute(statement.replace("outbox_audit", f"{SCHEMA}.outbox_audit"))


# ----------------------------------------------------------------------------------- what a worker can do to others


def emit_as_worker(roles: Roles, numbers: range) -> None:
    with roles.worker.engine.begin() as connection:
        Outbox(schema=SCHEMA).emit_many(connection, [("page.read", {"n": n}) for n in numbers])


@pytest.mark.parametrize("error", [ValueError, Reject, ConnectionError])
async def test_eight_bad_messages_of_a_worker_stop_no_destination(roles: Roles, error: type[Exception]) -> None:
    taker = Taker(failing(*range(8), error=error))
    emit_as_worker(roles, range(8))
    settings = roles.settings(roles.relay, destinations={"a": to(taker)}, window=8, page_size=4)
    async with Relay(settings):
        await taker.has_tried(5)
        emit_as_worker(roles, range(8, 48))
        await eventually_async(lambda: set(range(8, 48)) <= set(taker.taken), deadline_s=30)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("error", [ValueError, ConnectionError])
async def test_a_few_failing_messages_of_a_worker_do_not_hammer_the_receiver(
    roles: Roles, count: int, error: type[Exception]
) -> None:
    taker = Taker(failing(*range(count), error=error))
    emit_as_worker(roles, range(count))
    patient = to(taker, backoff_s=3600, backoff_max_s=3600)
    async with Relay(roles.settings(roles.relay, destinations={"a": patient})):
        await taker.has_tried(count)
        for _ in range(40):
            await a_beat(roles)
        assert max(taker.tries.values()) <= 3


async def a_beat(roles: Roles) -> None:
    """Wait until the relay has beaten once more."""

    def seen() -> Any:
        return roles.owner.scalar(f"SELECT last_seen_at FROM {SCHEMA}.outbox_relay")

    before = seen()
    await eventually_async(lambda: seen() != before)


# ------------------------------------------------------------------------------------------------ one right less


@pytest.mark.parametrize("right", singles(rights.RELAY + rights.BASELINE), ids=name_of)
async def test_a_relay_that_lacks_one_right_names_it_at_the_start(roles: Roles, right: Right) -> None:
    roles.revoke(right, roles.relay)
    baseline = {"baseline": ListenerSettings(listener=BASELINE_LISTENER, events=["extraction.completed"])}
    with pytest.raises(Unusable) as error:
        async with asyncio.timeout(20), Relay(roles.settings(roles.relay, destinations=baseline)):
            pass
    assert_named(str(error.value), right, roles.role(roles.relay))
    assert roles.owner.scalar(f"SELECT count(*) FROM {SCHEMA}.outbox_destination") == 0, "it changed nothing"


@pytest.mark.parametrize("right", singles(rights.EXTRACT + rights.COMMANDS + rights.WORKER[:2]), ids=name_of)
def test_a_worker_that_lacks_one_right_names_it(roles: Roles, run: Run, right: Right, tmp_path: Path) -> None:
    roles.revoke(right, roles.worker)
    document = tmp_path / "one.txt"
    for text in ("Relays deliver messages. ", "Relays deliver messages. "):  # the second time, the document is known
        document.write_text(text * 20)
        ended = run(roles.worker, "extract", str(document))
    assert ended.returncode == 3, ended.stderr
    assert_named(ended.stderr.replace("\n", " "), right, roles.role(roles.worker))
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("right", singles(rights.MIGRATOR), ids=name_of)
def test_a_migrator_that_lacks_one_right_names_it(roles: Roles, run: Run, right: Right) -> None:
    roles.owner.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
    roles.owner.execute(f"CREATE SCHEMA {SCHEMA}")
    for each in singles(rights.MIGRATOR):
        if each != right:
            roles.owner.execute(each.grant(SCHEMA, roles.role(roles.migrator)))
    ended = run(roles.migrator, "db", "upgrade")
    assert ended.returncode == 3, ended.stderr
    assert_named(ended.stderr, right, roles.role(roles.migrator))


@pytest.mark.parametrize(
    ("right", "use"),
    [
        (rights.CONSUMER[0], lambda connection: Outbox(schema=SCHEMA).once(connection, "reports", "m-1")),
        (rights.WORKER[1], lambda connection: Outbox(schema=SCHEMA).emit(connection, "page.read", {})),
        (rights.WORKER[2], lambda c: c.execute(sa.text(f"SELECT {SCHEMA}.outbox_emit('page.read', '{{}}')"))),
        (rights.WORKER[3], lambda c: c.execute(sa.text(f"SELECT {SCHEMA}.outbox_emit('page.read', '{{}}')"))),
        (rights.WORKER[6], lambda c: Outbox(schema=SCHEMA).emit(c, "t", {}, ordering_key="k", strict_order=True)),
    ],
    ids=["once", "emit", "outbox_emit", "outbox_uuid7", "outbox_take_turns"],
)
def test_in_a_workers_own_code_the_server_names_the_object(roles: Roles, right: Right, use: Any) -> None:
    roles.revoke(right, roles.worker)
    with roles.worker.engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as error:
        use(connection)
    assert f"permission denied for {right.kind.lower()} {right.name.partition('(')[0]}" in str(error.value.orig)


async def test_a_right_that_is_taken_away_while_a_relay_runs_ends_it_with_a_sentence(roles: Roles) -> None:
    destinations = {"a": to(Taker())}
    with pytest.raises(Unusable, match=r"permission denied for table outbox_relay: .*outbox db grants"):  # noqa: PT012
        async with asyncio.timeout(20), Relay(roles.settings(roles.relay, destinations=destinations)) as relay:
            roles.revoke(Right(("UPDATE",), "TABLE", "outbox_relay"), roles.relay)
            await relay.wait()


def test_a_relay_goes_on_beside_one_that_is_stuck_and_of_another_role(roles: Roles) -> None:
    """It has no right to end the other's session, and says so once."""
    sessions = [
        PostgresStore(Address.parse(database.url, schema=SCHEMA), lease_s=15, keep_history=True, notify=True)
        .open(name, ANY_GENERATION)
        for name, database in (("stuck", roles.owner), ("well", roles.relay))
    ]  # fmt: skip
    roles.owner.execute(f"UPDATE {SCHEMA}.outbox_relay SET last_seen_at = last_seen_at - interval '1 hour'")
    with capture_logs() as records:
        assert [sessions[1].ownership.beat([], 0).ended for _ in range(3)] == [[], [], []]
    assert [(record["event"], record["relay"]) for record in records] == [("peer_not_ended", "stuck")]
    for session in sessions:
        session.close()


def test_a_stranger_that_passes_for_a_relay_which_ended_is_found_out_when_it_does_not_beat(roles: Roles) -> None:
    """The stranger happens to have that relay's process id, and took its presence lock; only its role is wrong."""
    store = PostgresStore(Address.parse(roles.relay.url, schema=SCHEMA), lease_s=15, keep_history=True, notify=True)
    session = store.open("well", ANY_GENERATION)
    with roles.worker.engine.connect() as stranger:
        stranger.exec_driver_sql(f"SELECT pg_advisory_lock(hashtext('{SCHEMA}.outbox_message'), 4711)")
        pid = stranger.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        roles.owner.execute(
            f"INSERT INTO {SCHEMA}.outbox_relay (id, backend_pid, presence, release, last_seen_at) "
            "VALUES ('ended', :pid, 4711, '0.1.0', now() - interval '1 hour')",
            pid=pid,
        )
        roles.owner.execute(f"UPDATE {SCHEMA}.outbox_shard SET relay = (SELECT max(number) FROM {SCHEMA}.outbox_relay)")
        assert take(session, range(64)) == []
        session.ownership.beat([], 0)
        assert take(session, range(64)) == list(range(64))
    session.close()


def test_the_state_of_a_shared_limit_is_for_relays_alone(roles: Roles) -> None:
    table = f"{SCHEMA}.outbox_rate"
    with pytest.raises(sa.exc.DBAPIError, match="permission denied for table outbox_rate"):
        roles.worker.execute(f"INSERT INTO {table} (destination, rate) VALUES ('api', '50/s')")
    with pytest.raises(sa.exc.DBAPIError, match="permission denied for table outbox_rate"):
        roles.worker.execute(f"SELECT FROM {table}")
    roles.relay.execute(f"INSERT INTO {table} (destination, rate) VALUES ('api', '50/s')")
    roles.relay.execute(f"UPDATE {table} SET arrival_s = 1")
    assert roles.relay.scalar(f"SELECT count(*) FROM {table}") == 1
    roles.relay.execute(f"DELETE FROM {table}")


def test_a_worker_sees_whether_a_relay_sleeps_and_may_not_change_that(roles: Roles) -> None:
    flag = f"'{SCHEMA}.outbox_wake'"
    roles.relay.execute(f"SELECT setval({flag}, 2)")
    assert roles.worker.scalar(f"SELECT pg_sequence_last_value({flag})") == 2
    for change in (f"setval({flag}, 0)", f"nextval({flag})"):
        with pytest.raises(sa.exc.DBAPIError, match="permission denied for sequence outbox_wake"):
            roles.worker.execute(f"SELECT {change}")
