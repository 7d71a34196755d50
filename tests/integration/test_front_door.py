"""What a newcomer meets: names that lead nowhere, times, plurals, and commands that can be pasted."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.commands import Run
from support.databases import Database
from support.scene import Scene, Taker, rejecting, to

TEXT = "A relay owns shards. The relay reads messages of its shards and delivers the messages to destinations.\n" * 3
CALLED = str(Path(sys.executable).with_name("outbox"))


def test_a_file_that_was_named_and_cannot_be_read_is_a_failure_after_all_the_rest_was_done(
    run: Run, sqlite_database: Database, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "relay.txt").write_text(TEXT)
    (tmp_path / "docs" / "picture.png").write_bytes(b"\x89PNG")
    wanted = run("extract", "nowhere.txt", "docs", url=sqlite_database.url)
    assert wanted.returncode == 1
    assert "nowhere.txt: does not exist" in wanted.stderr
    assert "1 message committed" in wanted.stderr
    named = run("extract", "docs", "docs/picture.png", url=sqlite_database.url)
    assert named.returncode == 1
    found = run("extract", "docs", url=sqlite_database.url)
    assert (found.returncode, "picture.png" in found.stderr) == (0, True)


@pytest.mark.parametrize("arguments", [["status"], ["db", "upgrade"], ["demo"], ["relay"], ["doctor"]], ids=" ".join)
def test_an_sqlite_file_in_a_folder_that_is_not_there_is_advised_about_the_folder(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    ended = run(*arguments, url="sqlite:///nowhere/x.db")
    assert ended.returncode == 3
    assert f"there is no folder {tmp_path}/nowhere" in ended.stderr
    assert "DATABASE_URL" in ended.stderr
    assert "upgrade" not in ended.stderr
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("arguments", [["status"], ["relay", "--drain"], ["emit", "a.b", "{}"]], ids=" ".join)
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://postgres@127.0.0.1:1/x", "cannot reach the database postgresql://postgres@127.0.0.1:1/x: "),
        ("{server}/nowhere", 'refuses us: database "nowhere" does not exist; check what OUTBOX_DATABASE_URL or '),
    ],
)
def test_a_relay_and_an_operator_hear_the_same_of_a_database_that_is_not_there(
    run: Run, postgres_database: Database, arguments: list[str], url: str, said: str
) -> None:
    server = postgres_database.url.rpartition("/")[0]
    ended = run(*arguments, url=url.format(server=server))
    assert (ended.returncode, said in ended.stderr) == (3, True), ended.report()


@pytest.mark.parametrize("arguments", [["db", "upgrade"], ["demo"]], ids=" ".join)
def test_a_file_that_cannot_be_opened_is_advised_about_the_rights(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    ended = run(*arguments, url=f"sqlite:///{tmp_path}")
    assert ended.returncode == 3
    assert "must be able to read and write the file and its folder" in ended.stderr


@pytest.mark.parametrize("arguments", [["status"], ["relay", "--drain"], ["emit", "a.b", "{}"]], ids=" ".join)
def test_a_database_without_an_outbox_is_named(run: Run, empty_postgres: Database, arguments: list[str]) -> None:
    name = empty_postgres.url.rpartition("/")[2]
    ended = run(*arguments, url=empty_postgres.url)
    assert (ended.returncode, f"/{name} has no outbox: run `outbox db upgrade`" in ended.stderr) == (3, True)
    elsewhere = run(*arguments, url=empty_postgres.url, OUTBOX_SCHEMA="messaging")
    assert f"schema messaging of {empty_postgres.url.partition('+')[0]}" in elsewhere.stderr, elsewhere.report()


@pytest.mark.parametrize(
    ("called", "found", "shown"),
    [
        (CALLED, True, "outbox"),
        (CALLED, False, CALLED),
        (".venv/bin/outbox", True, ".venv/bin/outbox"),
        ("my tools/outbox", False, "'my tools/outbox'"),
        ("/usr/lib/python3/outbox_cli/__main__.py", False, "outbox"),
    ],
)
def test_advised_commands_can_be_pasted(run: Run, called: str, found: bool, shown: str) -> None:
    path = str(Path(CALLED).parent) if found else "/usr/bin"
    ended = run("status", program=called, PATH=path)
    assert f"run `{shown} db upgrade`" in ended.stderr


@pytest.mark.parametrize(
    "twice",
    ['{"a": 1, "a": 2}', '{"b": [{"a": 1, "a": 1}]}', '{"a": {}, "\\u0061": {}}'],
    ids=["flat", "nested", "escaped"],
)
def test_data_that_names_a_member_twice_is_refused(run: Run, database: Database, twice: str) -> None:
    ended = run("emit", "a.b", twice, url=database.url)
    assert ended.returncode == 2
    assert '"a" stands twice' in " ".join(re.sub("[│╭╮╰╯─]", "", ended.stderr).split())
    assert database.scalar("SELECT count(*) FROM outbox_message") == 0


@pytest.mark.parametrize("option", ["--ordering-key", "--id", "--subject"])
def test_an_option_of_emit_that_is_empty_is_refused_and_not_ignored(
    run: Run, sqlite_database: Database, option: str
) -> None:
    """An unset shell variable gives an empty option: the message would lose its order, or get a new id each time."""
    assert run("emit", "a.b", "{}", option, "", url=sqlite_database.url).returncode == 2
    assert sqlite_database.scalar("SELECT count(*) FROM outbox_message") == 0


def test_a_header_that_is_given_twice_is_refused(run: Run, sqlite_database: Database) -> None:
    ended = run("emit", "a.b", "{}", "--header", "x-a=1", "--header", "x-a=2", url=sqlite_database.url)
    assert ended.returncode == 2
    assert sqlite_database.scalar("SELECT count(*) FROM outbox_message") == 0


def test_times_are_in_utc_and_say_so_and_can_be_given_as_they_are_shown(run: Run, database: Database) -> None:
    """This holds for any time zone of the operator and of the database."""
    if database.kind == "postgres":
        name = database.scalar("SELECT current_database()")
        database.execute(f"ALTER DATABASE \"{name}\" SET timezone = 'Asia/Kathmandu'")
    due = "2099-01-01 12:30:00Z"
    environ = {"url": database.url, "TZ": "America/New_York"}
    id_ = run("emit", "a.b", "{}", "--due-at", due, **environ).stdout.strip()
    naive = run("emit", "a.b", "{}", "--due-at", "2099-01-01T12:30:00", **environ).stdout.strip()
    assert due in run("messages", "list", **environ).stdout
    shown = run("messages", "show", id_, **environ).stdout
    assert shown.count(due) == 3  # as a fact, and as the time and in the words of what happens next
    for each in (id_, naive):
        at = json.loads(run("messages", "show", each, "--json", **environ).stdout)["message"]["due_at"]
        assert at == "2099-01-01T12:30:00+00:00"


async def test_one_is_one_and_two_are_two(run: Run, database: Database) -> None:
    scene = Scene(database)
    scene.emit(3)
    await scene.drain({"a": to(Taker(rejecting(0)))})
    for arguments, said in (
        (["dead", "retry", "--all", "--dry-run"], "would retry 1 dead letter;"),
        (["dead", "discard", "--all", "--yes"], "discarded 1 dead letter\n"),
        (["replay", "--to", "a", "--dry-run", "--since", "1h"], "messages; nothing was done"),
    ):
        assert said in run(*arguments, url=database.url).stderr


async def test_an_attempt_is_dated_like_everything_else(run: Run, database: Database) -> None:
    scene = Scene(database)
    scene.emit(1)
    await scene.drain({"a": to(Taker(rejecting(0)))})
    message_id = database.scalar("SELECT message_id FROM outbox_delivery")
    shown = run("dead", "show", str(message_id), url=database.url).stdout
    dates = re.findall(r"20\d\d-\d\d-\d\d\S*[ T]\S+", shown)
    assert len(dates) >= 2
    for date in dates:
        assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ", date)
        assert abs((datetime.now(UTC) - datetime.fromisoformat(date)).total_seconds()) < 600


@pytest.mark.parametrize("option", ["--cause", "--because", "--destination", "--type"])
async def test_a_filter_that_is_empty_does_not_choose_every_dead_letter(
    run: Run, sqlite_database: Database, option: str
) -> None:
    scene = Scene(sqlite_database)
    scene.emit(1)
    await scene.drain({"a": to(Taker(rejecting(0)))})
    ended = run("dead", "discard", option, "", "--yes", url=sqlite_database.url)
    assert (ended.returncode, option in ended.stderr, "it is empty" in ended.stderr) == (2, True, True)
    assert sqlite_database.scalar("SELECT count(*) FROM outbox_delivery WHERE state = 'dead'") == 1


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
async def test_an_id_can_be_copied_from_a_terminal_however_narrow_it_is(
    run: Run, sqlite_database: Database, columns: int
) -> None:
    scene = Scene(sqlite_database)
    scene.emit(2)
    await scene.drain({"a": to(Taker(rejecting(0, 1)))})
    ids = [str(id_) for (id_,) in sqlite_database.rows("SELECT message_id FROM outbox_delivery")]
    terminal = {"url": sqlite_database.url, "FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": str(columns)}
    for arguments in (["messages", "list"], ["dead", "list", "--each"]):
        shown = re.sub(r"\x1b\[[0-9;]*m", "", run(*arguments, **terminal).stdout)
        assert [id_ for id_ in ids if id_ not in shown] == []
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= columns


def test_a_destination_without_a_secret_is_advised_of_what_would_give_it_one(run: Run, tmp_path: Path) -> None:
    url = "http://localhost:3000"
    assert "set INTERNAL_API_SECRET if" in run("config", "check", API_URL=url).stderr
    (tmp_path / "outbox.toml").write_text(f'[destinations.api]\nkind = "http"\nurl = "{url}"\nevents = ["a.b"]\n')
    assert 'secret_env = "INTERNAL_API_SECRET" if' in run("config", "check", INTERNAL_API_SECRET="x").stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def take(message) pass", "SyntaxError: expected ':'"),
        ("1 / 0", "ZeroDivisionError: division by zero (at {}:1)"),
        ("\nraise SystemExit('no')", "SystemExit: no (at {}:2)"),
    ],
)
def test_a_listener_whose_module_cannot_be_imported_is_said_with_its_place(
    run: Run, tmp_path: Path, source: str, said: str
) -> None:
    """The command prints no traceback and does not succeed, even if the module ends the process that imports it."""
    name = f"unloadable_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    (tmp_path / "outbox.toml").write_text(
        f'[destinations.a]\nkind = "listener"\nlistener = "{name}:take"\nevents = ["a.b"]\n'
    )
    ended = run("config", "check")
    assert ended.returncode == 3
    assert f"importing {name} raised {said.format(tmp_path / (name + '.py'))}" in ended.stderr


@pytest.mark.parametrize("queue", ["", "amq.topic", "q" * 251, "größe"], ids=["empty", "reserved", "long", "foreign"])
def test_a_queue_that_no_broker_can_have_is_wrong_usage(run: Run, sqlite_database: Database, queue: str) -> None:
    """The broker is not asked: for "" it made a durable queue with another name each time."""
    ended = run("consume", "--queue", queue, url=sqlite_database.url, AMQP_URL="amqp://127.0.0.1:1/")
    assert (ended.returncode, "a name has at most 250" in ended.stderr) == (2, True)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (["demo"], "[PATH]..."),
        (["extract"], "{PATH}..."),
        (["dead", "retry"], "[ID]..."),
        (["dead", "discard"], "[ID]..."),
    ],
)
def test_the_usage_says_once_that_an_argument_may_be_repeated(run: Run, command: list[str], arguments: str) -> None:
    usage = next(line for line in run(*command, "--help").stdout.splitlines() if "Usage:" in line)
    assert usage.strip().endswith(f"outbox {' '.join(command)} [OPTIONS] {arguments}")


def test_a_relay_that_nobody_configured_says_that_it_would_use_the_default_destination(run: Run) -> None:
    assert "it is the default, because no destination is configured" in run("config", "check").stderr
    assert "the default" not in run("config", "check", API_URL="http://api.example/x").stderr
