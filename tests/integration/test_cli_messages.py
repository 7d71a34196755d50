"""Commands about messages, and their output to terminals, pipes and closed streams."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import Run, status
from support.databases import Database

OUTBOX = Path(sys.executable).with_name("outbox")


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
        environ = os.environ | {"DATABASE_URL": database.url, "COLUMNS": "200"}
        return subprocess.run(
            command, env=environ, input=stdin, capture_output=True, text=True, check=False, timeout=60
        )

    assert emit("-", stdin='{"contentId": "c-1"}').returncode == 0
    for wrong in (emit("{nonsense"), emit("{}", "--id", "x"), emit("{}", "--delay", "1s", "--due-at", "2030-01-01")):
        assert wrong.returncode == 2, wrong.stderr
        assert "Traceback" not in wrong.stderr
    assert "single quotes" in emit("{contentId: c-1}").stderr
    assert "single quotes" not in emit("-", stdin="{contentId: c-1}").stderr
    assert database.scalar("SELECT count(*) FROM outbox_message") == 1


def test_emit_takes_how_long_a_message_is_wanted(run: Run, database: Database) -> None:
    emitted = run("emit", "a.b", "{}", "--due-at", "2020-01-01", "--expires-in", "10m", url=database.url)
    assert emitted.returncode == 0, emitted.report()
    expires_at = str(database.scalar("SELECT expires_at FROM outbox_message"))
    assert expires_at.startswith("2020-01-01 00:10:00")
    for wrong in ("0s", "soon"):
        assert run("emit", "a.b", "{}", "--expires-in", wrong, url=database.url).returncode == 2


def test_an_unknown_message_is_exit_code_1_with_the_database_that_lacks_it_and_a_malformed_id_2(
    run: Run, database: Database
) -> None:
    unknown = run("messages", "show", "0197c0de-0000-7000-8000-000000000000", url=database.url)
    assert unknown.returncode == 1
    assert "has no message 0197c0de-0000-7000-8000-000000000000" in unknown.stderr
    assert unknown.stderr.startswith(("postgresql://", "sqlite:///", "schema "))
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
def test_a_closed_stream_changes_nothing(sqlite_database: Database, command: str) -> None:
    environ = {**os.environ, "DATABASE_URL": sqlite_database.url}
    command = f"'{OUTBOX}' {command}"
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["status", "status --json", "db sql"])
def test_output_to_a_full_disk_is_a_failure_with_a_sentence(sqlite_database: Database, command: str) -> None:
    environ = {**os.environ, "DATABASE_URL": sqlite_database.url}
    command = f"'{OUTBOX}' {command} > /dev/full"
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "outbox: the output cannot be written: No space left on device\n"


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
        except OSError:  # the other end is closed
            os.close(fd)
            return output.decode()
