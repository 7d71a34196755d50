"""The command line as an operator and a script meet it: real processes, both databases."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from support.commands import Ended, Run
from support.databases import Database
from support.ports import free_port
from support.processes import Spawner
from support.waiting import eventually

from relay.cli.app import app

OUTBOX = Path(sys.executable).with_name("outbox")
LISTENER = """
import time
def on_completed(message):
    print("took", message.data["contentId"], flush=True)
    time.sleep(message.data.get("sleep_s", 0))
"""
CONFIG = """
health_port = 0
grace_s = 10
[destinations.printer]
kind = "listener"
listener = "printing_listener:on_completed"
"""


@pytest.fixture
def relay(spawn: Spawner) -> Run:
    """`relay("--drain", url=database.url)`: one relay, in a process of its own, run to its end."""

    def run(*arguments: str, url: str | None = None, **environ: str) -> Ended:
        process = spawn("outbox", "relay", *arguments, env=({"DATABASE_URL": url} if url else {}) | environ)
        return Ended(process.wait(deadline_s=60), process.stdout, process.stderr)

    return run


@pytest.fixture
def printer(tmp_path: Path) -> None:
    """A listener in the current directory that prints what it takes."""
    (tmp_path / "printing_listener.py").write_text(LISTENER)
    (tmp_path / "outbox.toml").write_text(CONFIG)


def status(run: Run, url: str) -> dict[str, object]:
    process = run("status", "--json", url=url)
    assert process.returncode == 0, process.report()
    found: dict[str, object] = json.loads(process.stdout)
    return found


# ------------------------------------------------------------------------------------------------ help and errors


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Each command and group of commands there is, by its words."""
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))


ALL_COMMANDS = [*commands(typer.main.get_command(app))]
GROUPS = {path[:-1] for path in ALL_COMMANDS if path}


@pytest.mark.parametrize("command", ALL_COMMANDS, ids=" ".join)
def test_every_command_explains_itself(run: Run, command: tuple[str, ...]) -> None:
    process = run(*command, "--help")
    assert process.returncode == 0
    assert f"outbox {' '.join(command)}".strip() in process.stdout
    assert "$ outbox" in process.stdout or command in GROUPS
    assert "\x1b" not in process.stdout


def test_the_exit_codes_are_in_the_help(run: Run) -> None:
    said = " ".join(run("--help").stdout.split())
    for code in ("0 ok", "1 failed", "2 wrong usage", "3 not usable here", "4 unhealthy", "130 interrupted"):
        assert code in said


def test_the_version_is_one_line_on_stdout(run: Run) -> None:
    assert re.fullmatch(r"neverlost \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize(
    "arguments", [["statsu"], ["status", "--jsno"], ["emit", "x"], ["status", "--fail-if-older", "soon"]]
)
def test_wrong_usage_is_exit_code_2(run: Run, arguments: list[str]) -> None:
    process = run(*arguments)
    assert process.returncode == 2
    assert process.stdout == ""
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"], ["relays"], ["db", "check"], ["messages", "list"], ["emit", "a.b", "{}"], ["relay"],
        ["relay", "--drain"], ["content", "missing"], ["extract", "."],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_command_but_demo_and_upgrade_creates_a_database(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    for environ in ({}, {"OUTBOX_DATABASE_URL": "sqlite:///somewhere.db"}):
        process = run(*arguments, **environ)
        assert process.returncode == 3, process.report()
        assert str(tmp_path / ("somewhere.db" if environ else "outbox.db")) in process.stderr
        assert "OUTBOX_DATABASE_URL" in process.stderr
        assert "Traceback" not in process.stderr
    assert list(tmp_path.glob("*.db*")) == []


@pytest.mark.parametrize(
    "arguments", [["status"], ["db", "upgrade"], ["relay", "--drain"], ["emit", "a.b", "{}"]], ids=" ".join
)
def test_a_database_out_of_reach_is_a_sentence_without_its_password(run: Run, arguments: list[str]) -> None:
    process = run(*arguments, url=f"postgresql://app:hunter2@127.0.0.1:{free_port()}/app")
    assert process.returncode == 3
    assert "Connection refused" in process.stderr
    assert "postgresql://app:***@127.0.0.1" in process.stderr
    assert "DATABASE_URL" in process.stderr
    assert "hunter2" not in process.stderr + process.stdout
    assert "Traceback" not in process.stderr


def test_a_database_without_our_tables_says_what_to_run(run: Run, empty_postgres: Database) -> None:
    process = run("status", url=empty_postgres.url)
    assert process.returncode == 3
    assert "outbox db upgrade" in process.stderr


def test_a_misspelled_variable_is_exit_code_3(run: Run) -> None:
    process = run("config", "show", OUTBOX_LEASE="3")
    assert process.returncode == 3
    assert "OUTBOX_LEASE_S" in process.stderr


def test_a_missing_right_is_named_with_the_command_that_prints_the_rights(
    run: Run, postgres_database: Database
) -> None:
    role = "nobody_" + postgres_database.url.rsplit("_", 1)[-1]
    postgres_database.execute(f"CREATE ROLE {role} LOGIN")
    url = postgres_database.url.replace("postgres@", f"{role}@")
    process = run("status", url=url)
    assert process.returncode == 3, process.report()
    assert f"the role {role} lacks SELECT on public.outbox_message" in process.stderr
    assert "outbox db grants" in process.stderr


# ------------------------------------------------------------------------------------------------ db


def test_upgrade_creates_the_database_and_may_be_repeated(run: Run, empty_database: Database) -> None:
    assert (
        "outbox_0001" in run("db", "upgrade", "--plan", url=empty_database.url).stdout
        or empty_database.kind == "sqlite"
    )
    assert run("db", "check", url=empty_database.url).returncode == 3
    first = run("db", "upgrade", url=empty_database.url)
    assert first.stdout.split() == ["content_0001", "outbox_0001"]
    again = run("db", "upgrade", url=empty_database.url)
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to do" in again.stderr
    assert run("db", "check", url=empty_database.url).returncode == 0


def test_a_plan_changes_nothing(run: Run, empty_sqlite: Database, tmp_path: Path) -> None:
    process = run("db", "upgrade", "--plan", url=empty_sqlite.url)
    assert process.returncode == 0
    assert "would create" in process.stderr
    assert list(tmp_path.glob("*.db")) == []


def test_upgrade_can_leave_the_content_tables_out(run: Run, empty_database: Database) -> None:
    run("db", "upgrade", "--only", "outbox", url=empty_database.url)
    with pytest.raises(Exception, match="topic_graphs"):
        empty_database.scalar("SELECT count(*) FROM topic_graphs")


def test_the_printed_sql_makes_the_same_tables(run: Run, empty_postgres: Database) -> None:
    printed = run("db", "sql").stdout
    with psycopg.connect(empty_postgres.url, autocommit=True) as connection:
        connection.execute(printed)
    assert run("db", "check", url=empty_postgres.url).returncode == 0


def test_grants_name_the_given_roles(run: Run) -> None:
    said = run("db", "grants", "--worker", "app", "--relay", "mover", "--schema", "messaging").stdout
    assert "GRANT INSERT ON messaging.outbox_message TO app;" in said
    assert "messaging.topic_graphs TO mover;" in said


# ------------------------------------------------------------------------------------------------ messages


def test_a_message_is_emitted_listed_shown_and_delivered(
    run: Run, relay: Run, database: Database, printer: None
) -> None:
    url = database.url
    emitted = run(
        "emit", "extraction.completed", '{"contentId": "c-1"}', "--ordering-key", "c-1", "--header", "tenant=t", url=url
    )
    assert emitted.returncode == 0, emitted.report()
    message_id = emitted.stdout.strip()
    (listed,) = json.loads(run("messages", "list", "--json", url=url).stdout)
    assert (listed["id"], listed["state"]) == (message_id, "ready")
    assert status(run, url)["waiting"] == 1
    assert run("status", "--fail-if-older", "1h", url=url).returncode == 0
    assert run("status", "--fail-if-older", "1ms", url=url).returncode == 4

    drained = relay("--drain", url=url)

    assert drained.returncode == 0, drained.report()
    assert "took c-1" in drained.stdout
    assert "delivered 1 message" in drained.stderr
    shown = json.loads(run("messages", "show", message_id, "--json", url=url).stdout)
    assert (shown["message"]["state"], shown["data"]) == ("delivered", {"contentId": "c-1"})
    assert shown["headers"]["tenant"] == "t"
    found = status(run, url)
    assert (found["waiting"], found["dead"], found["delivered"]) == (0, 0, 1)
    assert found["destinations"]["printer"]["state"] == "healthy"  # type: ignore[index]


def test_status_json_keeps_its_promised_fields(run: Run, database: Database) -> None:
    found = status(run, database.url)
    promised = {"waiting", "parked", "unrouted", "dead", "delivered", "oldest_waiting_s", "destinations", "relays"}
    assert promised <= found.keys()


def test_emit_reads_stdin_and_refuses_what_is_not_json(sqlite_database: Database) -> None:
    database = sqlite_database

    def emit(data: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [OUTBOX, "emit", "extraction.completed", data, *arguments]
        environ = os.environ | {"DATABASE_URL": database.url}
        return subprocess.run(
            command, env=environ, input=stdin, capture_output=True, text=True, check=False, timeout=60
        )

    assert emit("-", stdin='{"contentId": "c-1"}').returncode == 0
    for wrong in (emit("{nonsense"), emit("{}", "--id", "x"), emit("{}", "--delay", "1s", "--due-at", "2030-01-01")):
        assert wrong.returncode == 2, wrong.stderr
        assert "Traceback" not in wrong.stderr
    assert database.scalar("SELECT count(*) FROM outbox_message") == 1


def test_an_unknown_message_is_exit_code_1_and_a_malformed_id_2(run: Run, database: Database) -> None:
    assert run("messages", "show", "0197c0de-0000-7000-8000-000000000000", url=database.url).returncode == 1
    assert run("messages", "show", "nonsense", url=database.url).returncode == 2


def test_no_value_reaches_the_terminal_unescaped(run: Run, database: Database) -> None:
    run("emit", "a.b", '{"x": "\\u001b[31m"}', "--subject", "one\x1b[31m", url=database.url)
    (found,) = json.loads(run("messages", "list", "--json", url=database.url).stdout)
    shown = run("messages", "show", found["id"], url=database.url).stdout
    assert "\x1b" not in shown
    assert "\\x1b[31m" in shown


def test_a_reader_that_leaves_early_breaks_nothing(sqlite_database: Database) -> None:
    command = f"'{OUTBOX}' db sql | head -1; '{OUTBOX}' messages list --json | true"
    environ = {**os.environ, "DATABASE_URL": sqlite_database.url}
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("command", ["status >&-", "status --json >&-", "status >&- 2>&-", "nonsense 2>&-; [ $? = 2 ]"])
def test_a_closed_stream_is_written_to_in_vain_and_changes_nothing(sqlite_database: Database, command: str) -> None:
    environ = {**os.environ, "DATABASE_URL": sqlite_database.url}
    command = f"'{OUTBOX}' {command}"
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["status", "status --json", "db sql", "messages list --json", "config show"])
def test_output_that_finds_no_room_is_a_failure_with_a_sentence(sqlite_database: Database, command: str) -> None:
    environ = {**os.environ, "DATABASE_URL": sqlite_database.url}
    command = f"'{OUTBOX}' {command} > /dev/full"
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "outbox: what was found cannot be written: No space left on device\n"


def test_colours_only_on_a_terminal_that_wants_them(sqlite_database: Database) -> None:
    def on_a_terminal(**environ: str) -> str:
        ours, terminal = pty.openpty()
        environ = {**os.environ, "DATABASE_URL": sqlite_database.url, "TERM": "xterm", **environ}
        with subprocess.Popen([OUTBOX, "status"], stdout=terminal, stderr=terminal, env=environ):
            os.close(terminal)
            return _everything(ours)

    assert "\x1b[1m" in on_a_terminal()
    assert not re.search(r"\x1b\[[34]\dm", on_a_terminal(NO_COLOR="1"))


def _everything(fd: int) -> str:
    output = bytearray()
    while True:
        try:
            output += os.read(fd, 4096)
        except OSError:  # nobody has the other end any more
            os.close(fd)
            return output.decode()


# ------------------------------------------------------------------------------------------------ relay


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
    run("emit", "a.b", '{"contentId": "slow", "sleep_s": 9}', url=sqlite_database.url)
    relay.wait_for_output("took slow")
    os.kill(relay.pid, number)
    with pytest.raises(AssertionError):
        relay.wait(deadline_s=0.5)
    os.kill(relay.pid, number)
    assert relay.wait(deadline_s=3) == code


def test_a_relay_that_waits_for_its_database_can_be_stopped(spawn: Spawner) -> None:
    url = f"postgresql://app:hunter2@127.0.0.1:{free_port()}/app"
    relay = spawn("outbox", "relay", env={"DATABASE_URL": url, "OUTBOX_HEALTH_PORT": "0"})
    relay.wait_for_output("database_unreachable")
    relay.terminate()
    assert relay.wait(deadline_s=5) == 0
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


def test_processes_that_cannot_work_here_end_with_3(run: Run, relay: Run, empty_postgres: Database) -> None:
    process = relay("--processes", "2", url=empty_postgres.url, OUTBOX_HEALTH_PORT="0")
    assert process.returncode == 3, process.report()
    assert "outbox db upgrade" in process.stderr


def test_a_file_in_the_current_directory_replaces_no_module_of_ours(
    run: Run, relay: Run, tmp_path: Path, sqlite_database: Database, printer: None
) -> None:
    for name in ("structlog", "uvicorn", "json", "relay", "outbox", "alembic", "sqlalchemy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    run("emit", "a.b", '{"contentId": "c-1"}', url=sqlite_database.url)
    process = relay("--drain", url=sqlite_database.url)
    assert process.returncode == 0, process.report()
    assert "took c-1" in process.stdout


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


# ------------------------------------------------------------------------------------------------ config and content


def test_config_show_masks_secrets_and_names_origins(run: Run) -> None:
    environ = {"API_URL": "http://localhost:3000", "INTERNAL_API_SECRET": "hunter2-api", "OUTBOX_LEASE_S": "30s"}
    process = run("config", "show", url="postgresql://app:hunter2@db/app", **environ)
    assert process.returncode == 0
    assert "hunter2" not in process.stdout
    assert "OUTBOX_LEASE_S" in process.stdout
    (url,) = [line for line in process.stdout.splitlines() if line.startswith("url ")]
    assert url.split()[-1] == "API_URL"
    secrets = [line.split() for line in process.stdout.splitlines() if line.startswith("secret ")]
    assert ["secret", "**********", "INTERNAL_API_SECRET"] in secrets
    found = json.loads(run("config", "show", "--json", url="postgresql://app:hunter2@db/app", **environ).stdout)
    assert found["lease_s"] == 30
    assert found["destinations"]["api"]["url"].endswith("/extraction/internal/completed")
    assert "hunter2" not in json.dumps(found)


def test_config_check_finds_a_listener_that_cannot_be_loaded(spawn: Spawner, printer: None, tmp_path: Path) -> None:
    assert spawn("outbox", "config", "check").wait() == 0
    (tmp_path / "printing_listener.py").write_text("")
    process = spawn("outbox", "config", "check")
    assert process.wait() == 3
    assert "printing_listener:on_completed" in process.stderr
