"""`outbox relay` under a supervisor: signals, processes, and what makes it end."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from support.commands import Run, status
from support.databases import Database
from support.ports import free_port
from support.processes import Spawner
from support.waiting import eventually


def test_sigterm_stops_a_relay_in_order(spawn: Spawner, run: Run, database: Database, printer: None) -> None:
    relay = spawn("outbox", "relay", env={"DATABASE_URL": database.url})
    run("emit", "a.b", '{"contentId": "slow", "sleep_s": 1}', url=database.url)
    relay.wait_for_output("took slow")
    assert len(json.loads(run("relays", "--json", url=database.url).stdout)) == 1
    relay.terminate()
    assert relay.wait() == 0, relay.report()
    assert status(run, database.url)["delivered"] == 1
    assert status(run, database.url)["relays"] == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_stops_it_at_once(
    spawn: Spawner, run: Run, sqlite_database: Database, printer: None, number: int, code: int
) -> None:
    relay = spawn("outbox", "relay", env={"DATABASE_URL": sqlite_database.url})
    run("emit", "a.b", '{"contentId": "slow", "sleep_s": 60}', url=sqlite_database.url)
    relay.wait_for_output("took slow")
    os.kill(relay.pid, number)
    relay.wait_for_output("relay_stopping")  # else the second signal might arrive together with the first
    with pytest.raises(AssertionError):
        relay.wait(deadline_s=0.5)
    os.kill(relay.pid, number)
    assert relay.wait() == code


def test_a_relay_that_waits_for_its_database_can_be_stopped(spawn: Spawner) -> None:
    url = f"postgresql://app:hunter2@127.0.0.1:{free_port()}/app"
    relay = spawn("outbox", "relay", env={"DATABASE_URL": url, "OUTBOX_HEALTH_PORT": "0"})
    relay.wait_for_output("database_unreachable")
    relay.terminate()
    assert relay.wait() == 0
    assert "check that the server runs" in relay.stderr
    assert "hunter2" not in relay.stderr
    assert "Traceback" not in relay.stderr


def test_several_processes_share_the_work_and_stop_together(
    spawn: Spawner, run: Run, postgres_database: Database, printer: None
) -> None:
    url = postgres_database.url
    supervisor = spawn("outbox", "relay", "--processes", "2", env={"DATABASE_URL": url})
    eventually(lambda: len(json.loads(run("relays", "--json", url=url).stdout)) == 2, deadline_s=30)
    run("emit", "a.b", '{"contentId": "c-1"}', url=url)
    supervisor.wait_for_output("took c-1")
    supervisor.interrupt()
    assert supervisor.wait() == 0, supervisor.report()
    assert status(run, url)["relays"] == []


def test_a_process_that_dies_is_started_again(
    spawn: Spawner, run: Run, postgres_database: Database, printer: None
) -> None:
    url = postgres_database.url
    supervisor = spawn("outbox", "relay", "--processes", "2", env={"DATABASE_URL": url})

    def pids() -> set[int]:
        rows = postgres_database.rows("SELECT id FROM outbox_relay")
        return {int(row.id.split("-")[-2]) for row in rows}

    before = eventually(lambda: found if len(found := pids()) == 2 else None, deadline_s=30)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    supervisor.wait_for_output("relay_process_ended")
    eventually(lambda: len(pids() - {victim}) == 2, deadline_s=30)
    supervisor.terminate()
    assert supervisor.wait() == 0, supervisor.report()


def test_relays_end_when_their_supervisor_is_killed(
    spawn: Spawner, run: Run, postgres_database: Database, printer: None
) -> None:
    url = postgres_database.url
    supervisor = spawn("outbox", "relay", "--processes", "2", env={"DATABASE_URL": url})
    eventually(lambda: len(json.loads(run("relays", "--json", url=url).stdout)) == 2, deadline_s=30)
    supervisor.kill()
    eventually(lambda: status(run, url)["relays"] == [], deadline_s=30)


def test_relays_that_wait_for_their_database_end_too_when_their_supervisor_is_killed(spawn: Spawner) -> None:
    """They used to wait for ever."""
    url = f"postgresql://app@127.0.0.1:{free_port()}/app"
    supervisor = spawn("outbox", "relay", "--processes", "2", env={"DATABASE_URL": url, "OUTBOX_HEALTH_PORT": "0"})
    eventually(lambda: supervisor.stderr.count("database_unreachable") >= 2, what="both relays wait")
    relays = psutil.Process(supervisor.pid).children()
    supervisor.kill()
    assert len(relays) == 2
    gone, _ = psutil.wait_procs(relays, timeout=30)
    assert set(gone) == set(relays)


def test_processes_that_cannot_work_here_end_with_3(run: Run, relay: Run, empty_postgres: Database) -> None:
    process = relay("--processes", "2", url=empty_postgres.url, OUTBOX_HEALTH_PORT="0")
    assert process.returncode == 3, process.report()
    assert "outbox db upgrade" in process.stderr


def test_a_file_in_the_current_directory_replaces_no_module_of_ours(
    run: Run, spawn: Spawner, tmp_path: Path, sqlite_database: Database, printer: None
) -> None:
    for name in ("structlog", "uvicorn", "json", "relay", "outbox", "alembic", "sqlalchemy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    run("emit", "a.b", '{"contentId": "c-1"}', url=sqlite_database.url)
    process = spawn("outbox", "relay", "--drain", env={"DATABASE_URL": sqlite_database.url}, is_anew=True)
    assert process.wait() == 0, process.report()
    assert "took c-1" in process.stdout


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_drain_exits_with_0_only_if_nothing_is_left_and_else_with_4_and_the_reason(
    run: Run, relay: Run, sqlite_database: Database, postgres_database: Database, printer: None, processes: str
) -> None:
    url = (sqlite_database if processes == "1" else postgres_database).url
    once = ("--drain", "--processes", processes)
    run("emit", "a.b", '{"contentId": "c-1"}', url=url)
    run("emit", "a.b", '{"contentId": "c-2"}', "--delay", "1h", url=url)
    process = relay(*once, url=url, OUTBOX_HEALTH_PORT="0")
    assert (process.returncode, "left" in process.stderr) == (0, False), process.report()
    run("pause", "printer", "--reason", "a release", url=url)
    run("emit", "a.b", '{"contentId": "c-3"}', url=url)
    process = relay(*once, url=url, OUTBOX_HEALTH_PORT="0")
    assert process.returncode == 4, process.report()
    assert "left: 1 for printer: an operator paused it (a release" in process.stderr
    run("resume", "printer", url=url)
    assert relay(*once, url=url, OUTBOX_HEALTH_PORT="0").returncode == 0


def test_a_relay_configured_otherwise_says_where_and_owns_nothing(
    run: Run, relay: Run, database: Database, printer: None, tmp_path: Path
) -> None:
    relay("--drain", url=database.url)
    (tmp_path / "outbox.toml").unlink()
    process = relay("--drain", url=database.url, OUTBOX_HEALTH_PORT="0")
    assert process.returncode == 3
    assert "printer" in process.stderr
    assert "--apply" in process.stderr
    assert relay("--drain", "--apply", url=database.url, OUTBOX_HEALTH_PORT="0").returncode == 0
