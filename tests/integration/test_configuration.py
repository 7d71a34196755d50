"""A relay that is configured differently from the others, or refused by its database, owns nothing and says why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.databases import Database
from support.processes import Process, Spawner
from support.waiting import eventually

from relay.admin.destinations.registration import Registration, register
from relay.databases.database import Database as Address
from relay.databases.postgresql.connections.refusals import is_refusal

API = Registration("api", "http", ("extraction.completed",), "block")
REPORTS = """
health_port = 0
[destinations.reports]
kind = "listener"
listener = "reports:on_completed"
events = [{events}]
"""
RunRelay = Callable[..., Process]


@pytest.fixture
def relay(spawn: Spawner, tmp_path: Path) -> RunRelay:
    """`relay(url, API_URL="…")` runs a relay that is expected to end by itself."""
    (tmp_path / "reports.py").write_text("def on_completed(message): raise SystemExit('sent')\n")

    def run(url: str, *arguments: str, **environ: str) -> Process:
        process = spawn("outbox", "relay", *arguments, env={"DATABASE_URL": url, "OUTBOX_HEALTH_PORT": "0", **environ})
        process.wait()
        return process

    return run


def file(tmp_path: Path, events: str) -> None:
    (tmp_path / "outbox.toml").write_text(REPORTS.format(events=events))


def emit(database: Database) -> None:
    database.execute("INSERT INTO outbox_message (id, type, source, data) VALUES (:id, 'a.b', 's', '{}')", id=ID)


ID = "0197c0de-0000-7000-8000-000000000001"


def assert_left_alone(process: Process, database: Database, *said: str) -> None:
    """Assert that the relay ended with exit code 3 and a sentence, and changed nothing."""
    assert process.returncode == 3, process.report()
    assert "Traceback" not in process.stderr
    last = process.stderr.rstrip().splitlines()[-1]
    for each in said:
        assert each in last
    assert database.scalar("SELECT state FROM outbox_message") == "ready"
    assert database.scalar("SELECT count(*) FROM outbox_relay") == 0
    assert database.scalar("SELECT max(generation) FROM outbox_destination") == 1


def test_a_relay_without_the_api_url_delivers_nothing_of_the_apis(database: Database, relay: RunRelay) -> None:
    register(Address.parse(database.url), [API])
    emit(database)
    process = relay(database.url)
    assert_left_alone(process, database, "api is registered and not configured here", "baseline", "--apply")


def test_a_relay_with_an_older_file_delivers_nothing(database: Database, relay: RunRelay, tmp_path: Path) -> None:
    reports = Registration("reports", "listener", ("a.*",), "block")
    register(Address.parse(database.url), [reports, Registration("audit", "listener", ("*",), "block")])
    emit(database)
    file(tmp_path, events='"a.*"')
    process = relay(database.url)
    assert_left_alone(process, database, "audit is registered and not configured here", "--apply")
    assert "reports" not in process.stderr


def test_a_relay_with_other_subscriptions_delivers_nothing(database: Database, relay: RunRelay, tmp_path: Path) -> None:
    register(Address.parse(database.url), [Registration("reports", "listener", ("a.*", "b.*"), "block")])
    emit(database)
    file(tmp_path, events='"a.*"')
    process = relay(database.url)
    assert_left_alone(process, database, "reports: events is a.* here and a.*, b.* there", "--apply")


# ------------------------------------------------------------------------------------------------ not let in


@pytest.mark.parametrize(
    ("name", "role", "said"),
    [("nowhere", "postgres", 'database "nowhere" does not exist'), (None, "no_such_role", 'role "no_such_role"')],
)
def test_a_wrong_name_at_the_start_is_an_error_and_nothing_to_wait_for(
    postgres_database: Database, relay: RunRelay, name: str | None, role: str, said: str
) -> None:
    url = postgres_database.url.replace("postgres@", f"{role}@")
    process = relay(url.rpartition("/")[0] + f"/{name}" if name else url)
    assert process.returncode == 3, process.report()
    last = process.stderr.rstrip().splitlines()[-1]
    assert said in last
    assert "check what OUTBOX_DATABASE_URL or DATABASE_URL says" in last
    assert "Traceback" not in process.stderr


def test_a_database_that_loses_its_name_while_the_relay_runs_is_waited_for(
    postgres_database: Database, spawn: Spawner, tmp_path: Path
) -> None:
    file(tmp_path, events='"x.y"')
    (tmp_path / "reports.py").write_text("def on_completed(message): pass\n")
    process = spawn("outbox", "relay", env={"DATABASE_URL": postgres_database.url})
    process.wait_for_output("shards_taken")
    server, _, name = postgres_database.url.rpartition("/")
    postgres_database.dispose()
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        assert away(admin, name)
        admin.execute(f"ALTER DATABASE {name} RENAME TO {name}_away")
        process.wait_for_output(f'{name}\\" does not exist')
        admin.execute(f"ALTER DATABASE {name}_away RENAME TO {name}")
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    process.wait_for_output("database_back")
    process.terminate()
    assert process.wait() == 0


def away(admin: psycopg.Connection[Any], name: str) -> bool:
    """End all connections to the database, and permit no new ones."""
    admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    return eventually(lambda: not admin.execute(ended, [name]).fetchall())


@pytest.mark.parametrize(
    ("said", "is_final"),
    [
        ('FATAL:  password authentication failed for user "app"', True),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.7", user "app", database "app", no encryption', True),
        ("fe_sendauth: no password supplied", True),
        ("FATAL:  no such database: nowhere", True),
        ("FATAL:  the database system is starting up", False),
        ("FATAL:  sorry, too many clients already", False),
        ("Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?", False),
        ('could not translate host name "db" to address: Temporary failure in name resolution', False),
        ('connection to server on socket "/tmp/.s" failed: No such file or directory', False),
    ],
)
def test_only_what_waiting_cannot_repair_is_an_error(said: str, is_final: bool) -> None:
    assert is_refusal(Exception(said)) is is_final


LISTENERS = """
from sqlalchemy.orm import Session

def yields(message):
    yield 1

def keyword_session(message, *, session: Session = None): ...
"""


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ('[destinations.a]\nkind = "listener"\nevents = ["*"]\nlistener = "mine:yields"\n', "remove the yield"),
        ('[serve]\nhandler = "mine:yields"\n', "remove the yield"),
        ('[destinations.a]\nkind = "listener"\nevents = ["*"]\nlistener = "mine:keyword_session"\n', None),
        ('[serve]\nhandler = "mine:keyword_session"\n', None),
    ],
)
def test_config_check_knows_a_listener_that_would_fail_at_each_call(
    spawn: Spawner, tmp_path: Path, sqlite_database: Database, settings: str, says: str | None
) -> None:
    (tmp_path / "mine.py").write_text(LISTENERS)
    (tmp_path / "outbox.toml").write_text(settings)
    process = spawn("outbox", "config", "check", env={"DATABASE_URL": sqlite_database.url})
    process.wait(deadline_s=30)
    assert process.returncode == (0 if says is None else 3), process.report()
    assert says is None or says in process.stderr
