"""An operator's commands, as an operator and a script see them, on both databases."""

import codecs
import os
import pty
import re
import select
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from support.commands import Run, runner
from support.databases import Database
from support.ports import free_port
from support.scene import Outage, Scene, Taker, rejecting, to

CONFIG = """
[destinations.printer]
kind = "listener"
listener = "printing_listener:on_completed"

[destinations.api]
kind = "http"
url = "http://127.0.0.1:{port}/hook"
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], database: Database) -> Run:
    """`run("dead", "list", "--json")` runs one command, in this process, on the test's database."""
    return partial(runner(monkeypatch, capfd), url=database.url)


@pytest.fixture
def scene(database: Database) -> Scene:
    return Scene(database)


async def with_dead_letters(scene: Scene) -> None:
    """Fill the outbox with three delivered messages, one dead and one blocked behind it."""
    scene.emit(2, ordering_key="k")
    scene.emit(3)
    await scene.drain({"a": Taker(rejecting(0))})
    assert scene.account == (3, 1, 1, 0)


ENDS = ("delivered", "discarded", "cancelled")

# ------------------------------------------------------------------------------------------------------ dead letters


async def test_dead_letters_are_listed_by_cause_and_one_by_one(run: Run, scene: Scene) -> None:
    await with_dead_letters(scene)
    (cause,) = run("dead", "list", "--json").json
    assert (cause["destination"], cause["count"]) == ("a", 1)
    assert "not 0" in cause["reason"]
    (letter,) = run("dead", "list", "--each", "--json", "--cause", cause["fingerprint"][:4]).json
    assert (letter["type"], letter["ordering_key"], letter["attempts"]) == ("page.read", "k", 1)
    assert "not 0" in run("dead", "list").stdout
    assert run("dead", "list", "--destination", "b", "--json").json == []
    shown = run("dead", "show", letter["id"])
    assert "Attempt 1 at a: given up: a dead letter" in shown.stdout
    assert f"outbox dead retry {letter['id']}" in shown.stdout


async def test_a_dry_run_does_nothing_and_a_retry_does_what_it_said(run: Run, scene: Scene) -> None:
    await with_dead_letters(scene)
    assert "would retry 1 dead letter" in run("dead", "retry", "--all", "--dry-run").stderr
    assert scene.account == (3, 1, 1, 0)
    ended = run("dead", "retry", "--destination", "a", "--reason", "fixed")
    assert (ended.returncode, "retried 1 dead letter" in ended.stderr) == (0, True)
    await scene.drain({"a": Taker()})
    assert scene.account == (5, 0, 0, 0)
    (entry, *_) = run("audit", "--json").json
    assert (entry["action"], entry["count"], entry["reason"]) == ("dead retry", 1, "fixed")
    assert entry["target"] == {"destination": "a"}


async def test_discarding_asks_unless_told_otherwise(run: Run, scene: Scene) -> None:
    await with_dead_letters(scene)
    refused = run("dead", "discard", "--all")
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert scene.account == (3, 1, 1, 0)
    assert "discarded 1 dead letter" in run("dead", "discard", "--all", "--yes").stderr
    await scene.drain({"a": Taker()})
    assert scene.account == (4, 0, 0, 0)


async def test_on_a_terminal_the_answer_decides(run: Run, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await with_dead_letters(scene)
    for answer, code, dead in ((b"n\n", 1, 1), (b"y\n", 0, 0)):
        keyboard, terminal = pty.openpty()
        with os.fdopen(terminal) as stdin, monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", stdin)
            os.write(keyboard, answer)
            assert run("dead", "discard", "--all").returncode == code
        assert scene.account[2] == dead
        os.close(keyboard)


async def test_nothing_is_retried_or_discarded_by_accident(run: Run, scene: Scene) -> None:
    await with_dead_letters(scene)
    for command in ("retry", "discard"):
        assert run("dead", command).returncode == 2
        assert run("dead", command, "not-an-id").returncode == 2
        unknown = run("dead", command, "0197c0de-0000-7000-8000-000000000000", "--reason", "x")
        assert (unknown.returncode, "nothing to do" in unknown.stderr) == (1, True)
        assert run("dead", command, "--older-than", "1d", "--dry-run").returncode == 0
    assert scene.account == (3, 1, 1, 0)


def test_a_watched_status_is_drawn_again_in_its_place_after_a_change(scene: Scene) -> None:
    scene.emit(1_234)
    keyboard, terminal = pty.openpty()
    command = [sys.executable, "-m", "outbox_cli", "status", "--watch", "--interval", "0.1"]
    environment = os.environ | {"DATABASE_URL": scene.database.url, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    try:
        assert "1,234" in read_until(keyboard, "1,234")
        scene.emit(1_111)
        shown = read_until(keyboard, "2,345")
        assert "\x1b[1A\x1b[2K" in shown  # up a line, and it is empty
        process.send_signal(signal.SIGINT)
        read_until(keyboard, None)
        assert process.wait(timeout=30) == 130
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)


def read_until(terminal: int, text: str | None) -> str:
    """Return what a program writes until it has written a text, or, without one, until it has ended."""
    shown, decoder = "", codecs.getincrementaldecoder("utf-8")()  # a read may end in the middle of a character
    while text is None or text not in shown:
        assert select.select([terminal], [], [], 30)[0], f"no {text} in {shown}"
        try:
            shown += decoder.decode(os.read(terminal, 65_536))
        except OSError:  # Linux's way to say that the program has closed it
            break
    return shown


@pytest.mark.parametrize(
    "command",
    [["messages", "list"], ["dead", "list"], ["dead", "retry"], ["dead", "discard", "--yes"], ["cancel", "--yes"]],
    ids=" ".join,
)
async def test_a_misspelt_destination_is_not_taken_for_one_without_messages(
    run: Run, scene: Scene, command: list[str]
) -> None:
    await scene.drain({"printer": Taker()})
    ended = run(*command, "--destination", "pinter")
    assert (ended.returncode, ended.stderr) == (1, "outbox: there is no destination pinter; registered: printer\n")
    assert run(*command, "--destination", "printer").returncode == 0


def test_without_dead_letters_it_says_so(run: Run) -> None:
    assert run("dead", "list").stderr.strip() == "there are no dead letters"
    assert run("dead", "list", "--json").json == []
    assert run("dead", "show", "0197c0de-0000-7000-8000-000000000000").returncode == 1


# ------------------------------------------------------------------------------------------------------------ replay


async def test_a_replay_shows_what_it_would_do_asks_and_does_it(run: Run, scene: Scene) -> None:
    scene.emit(4)
    new = Taker()
    destinations = {"old": Taker(), "new": to(new, events=["nothing.like.it"])}
    await scene.drain(destinations)
    dry = run("replay", "--to", "new", "--since", "1h", "--dry-run")
    assert "the ids stay" in dry.stderr
    assert "would replay 4 messages" in dry.stderr
    (found,) = run("replay", "--to", "new", "--dry-run", "--json").json
    assert (found["type"], found["count"], found["marked"]) == ("page.read", 4, 0)
    assert run("replay", "--to", "new").returncode == 2
    assert run("replay", "--to", "new", "--json").json == [found]  # refused too: there is no terminal for the question
    ended = run("replay", "--to", "new", "--yes", "--rate", "1000", "--reason", "the past")
    assert "queued 4 messages for new" in ended.stderr
    await scene.drain(destinations)
    assert sorted(new.taken) == [0, 1, 2, 3]
    assert run("replay", "--to", "new", "--type", "other", "--yes").returncode == 0
    assert run("replay", "--to", "nowhere", "--yes").returncode == 1
    assert run("replay", "--to", "new", "--since", "yesterday", "--yes").returncode == 2


# ------------------------------------------------------------------------------------------------------------- hands


# ----------------------------------------------------------------------------------------- cancelling, and one message


async def test_cancelling_shows_what_it_would_cancel_asks_and_is_recorded(run: Run, scene: Scene) -> None:
    await scene.drain({"a": Taker()})
    scene.emit(2, ordering_key="k")
    scene.emit(1)
    assert run("cancel").returncode == 2, "all are cancelled only if the command says so"
    assert run("cancel", "--key", "").returncode == 2
    assert run("cancel", "--unrouted", "--destination", "a", "--yes").returncode == 2, "these have no destination"
    dry = run("cancel", "--key", "k", "--dry-run")
    assert (dry.returncode, "would cancel 2 messages" in dry.stderr, "page.read" in dry.stdout) == (0, True, True)
    refused = run("cancel", "--key", "k")
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert scene.account == (0, 3, 0, 0)
    done = run("cancel", "--key", "k", "--yes", "--reason", "withdrawn", "--json")
    assert done.json == [{"type": "page.read", "state": "ready", "count": 2}]
    assert (done.returncode, "cancelled 2 messages" in done.stderr) == (0, True)
    (entry, *_) = run("audit", "--json").json
    assert (entry["action"], entry["target"], entry["count"], entry["reason"]) == (
        "cancel",
        {"key": "k"},
        2,
        "withdrawn",
    )
    assert run("cancel", "--all", "--type", "other.*", "--yes").returncode == 0
    taker = Taker()
    await scene.drain({"a": taker})
    assert taker.taken == [2]


@pytest.mark.parametrize(
    "command",
    [
        ["pause", "printer", "--reason", "caf\udce9"],
        ["pause", "caf\udce9"],
        ["dead", "list", "--destination", "caf\udce9"],
        ["messages", "list", "--type", "caf\udce9"],
        ["cancel", "--key", "caf\udce9", "--reason", "x", "--yes"],
    ],
)
async def test_an_argument_that_is_not_utf_8_is_named(run: Run, scene: Scene, command: list[str]) -> None:
    async with scene.relay({"printer": to(Taker())}):
        ended = run(*command)
    assert ended.returncode == 2
    assert re.fullmatch(r"outbox: 'caf\\udce9.*' is not UTF-8 text: pass it in UTF-8\n", ended.stderr), ended.stderr


async def test_of_ids_that_cannot_be_cancelled_it_says_where_to_look(run: Run, scene: Scene) -> None:
    scene.emit(2)
    await scene.drain({"a": Taker(rejecting(1))})
    (taken,) = run("messages", "list", "--state", "delivered", "--json").json
    (dead,) = run("messages", "list", "--state", "dead", "--json").json
    scene.emit(1, delay=60)
    (later,) = run("messages", "list", "--state", "scheduled", "--json").json
    run("cancel", later["id"], "--yes")
    unknown = "0197c0de-0000-7000-8000-000000000000"
    ended = run("cancel", taken["id"], dead["id"], later["id"], unknown, "--yes")
    assert ended.returncode == 1
    assert "`outbox messages show ID` says where one is" in ended.stderr
    assert (
        "nothing is sent; a relay moves it to the history (no relay owns" in run("messages", "show", later["id"]).stdout
    )


async def test_the_three_ends_of_a_message_are_told_apart_everywhere(run: Run, scene: Scene) -> None:
    scene.emit(2)
    await scene.drain({"a": Taker(rejecting(1))})
    run("dead", "discard", "--all", "--yes")
    scene.emit(1)
    run("cancel", "--all", "--yes")
    for _ in range(2):  # before and after a relay has moved them to the history
        ids = {state: run("messages", "list", "--state", state, "--json").json for state in ENDS}
        assert [len(found) for found in ids.values()] == [1, 1, 1]
        found = run("status", "--json").json
        assert [found[state] for state in ENDS] == [1, 1, 1]
        assert (found["waiting"], found["dead"]) == (0, 0)
        for state in ENDS:
            shown = run("messages", "show", ids[state][0]["id"])
            assert f"{state}: " in shown.stdout
        await scene.drain({"a": Taker()})
    assert run("replay", "--to", "a", "--dry-run", "--json").json[0]["count"] == 1, "what was given up is left alone"
    for line in run("status").stdout.splitlines():
        if line.startswith(ENDS):
            assert line.split()[1] == "1"


async def test_a_delivered_message_says_which_destination_took_it_when_and_at_which_attempt(
    run: Run, scene: Scene
) -> None:
    scene.emit(1)
    await scene.drain({"a": Taker(), "b": Taker(), "other": to(Taker(), events=["other.*"])})
    (row,) = run("messages", "list", "--state", "delivered", "--destination", "b", "--json").json
    await scene.drain({"b": Taker()}, apply=True)
    shown = run("messages", "show", row["id"], "--json").json
    assert [(d["destination"], d["state"], d["taken_at_attempt"]) for d in shown["deliveries"]] == [
        ("a", "delivered", 1),
        ("b", "delivered", 1),
    ]
    assert all(d["changed_at"] == shown["message"]["settled_at"] for d in shown["deliveries"])
    assert "Delivered to b   attempt 1" in run("messages", "show", row["id"]).stdout
    replayed = run("replay", row["id"], "--to", "b", "--yes")
    assert "queued 1 message for b" in replayed.stderr
    await scene.drain({"b": Taker()})
    shown = run("messages", "show", row["id"], "--json").json
    assert [d["destination"] for d in shown["deliveries"]] == ["b"]
    assert [d["destination"] for d in shown["before"]] == ["a", "b"]
    assert run("replay", "0197c0de-0000-7000-8000-000000000000", "--to", "b", "--yes").returncode == 1


async def test_destinations_are_listed_paused_and_resumed(run: Run, scene: Scene) -> None:
    await scene.drain({"a": Taker(), "b": to(Taker(), events=["other.*"])})
    assert "a is paused" in run("pause", "a", "--reason", "a release").stderr
    first, second = run("destinations", "list", "--json").json
    assert (first["name"], first["state"], first["paused_by"]) == ("a", "paused", "operator")
    assert (second["events"], second["state"]) == (["other.*"], "healthy")
    assert "a release" in run("destinations", "list").stdout
    assert run("resume", "a").returncode == 0
    assert run("destinations", "list", "--json").json[0]["state"] == "healthy"
    unknown = run("pause", "nowhere")
    assert (unknown.returncode, "registered: a, b" in unknown.stderr) == (1, True)
    assert [entry["action"] for entry in run("audit", "--json").json[:2]] == ["resume", "pause"]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_an_operator_who_finds_the_row_locked_is_told_to_try_again(
    run: Run, scene: Scene, database: Database
) -> None:
    await scene.drain({"a": Taker()})
    database.execute(f"ALTER DATABASE {database.engine.url.database} SET lock_timeout = '100ms'")
    with database.engine.begin() as elsewhere:
        elsewhere.exec_driver_sql("SELECT FROM outbox_destination FOR UPDATE")
        refused = run("pause", "a")
    assert (refused.returncode, refused.stderr.count("\n"), "run it again" in refused.stderr) == (1, 1, True)
    assert run("pause", "a").returncode == 0


def test_a_destination_is_tested_without_a_message(run: Run, tmp_path: Path) -> None:
    (tmp_path / "printing_listener.py").write_text("def on_completed(message):\n    pass\n")
    (tmp_path / "outbox.toml").write_text(CONFIG.format(port=free_port()))
    assert run("destinations", "test", "printer").returncode == 0
    unreachable = run("destinations", "test", "api")
    assert unreachable.returncode == 4
    assert "127.0.0.1" in unreachable.stderr
    assert run("destinations", "test", "other").returncode == 2


async def test_unrouted_messages_are_given_up_on_request(run: Run, scene: Scene) -> None:
    scene.emit(3, type="debug.noise")
    await scene.drain({"a": to(Taker(), events=["page.*"])})
    scene.emit(1)
    assert "would cancel 3 messages" in run("cancel", "--unrouted", "--dry-run").stderr
    assert run("cancel", "--unrouted").returncode == 2
    assert "cancelled 3 messages" in run("cancel", "--unrouted", "--type", "debug.*", "--yes").stderr
    listed = run("messages", "list", "--state", "cancelled")
    assert "nobody" not in listed.stdout + run("messages", "show", listed.stdout.split()[-7]).stdout, (
        "it is no destination"
    )
    assert run("cancel", "--unrouted", "--yes").returncode == 0
    await scene.drain({"a": to(Taker(), events=["page.*"])})
    assert scene.account == (1, 0, 0, 0)


async def test_a_message_shows_what_happens_next(run: Run, scene: Scene) -> None:
    await with_dead_letters(scene)
    ids = {row["deliveries"]["a"]: row["id"] for row in run("messages", "list", "--json").json}
    blocked, dead = ids["blocked"], ids["dead"]
    assert dead in run("messages", "show", blocked).stdout
    found = run("messages", "show", dead, "--json").json
    assert found["deliveries"][0]["state"] == "dead"
    assert "outbox dead retry" in found["deliveries"][0]["next"]


async def test_without_a_relay_no_probe_is_announced(run: Run, scene: Scene) -> None:
    scene.emit(5)
    await scene.drain({"down": Taker(Outage()), "fine": Taker()})
    first = run("messages", "list", "--json").json[0]["id"]
    deliveries = run("messages", "show", first, "--json").json["deliveries"]
    [shown] = [each for each in deliveries if each["next"] != "done"]
    assert "no relay probes it" in shown["next"]
    assert "`outbox relay`" in shown["next"]


def message_id(run: Run) -> str:
    [message] = run("messages", "list", "--json").json
    return str(message["id"])


# ------------------------------------------------------------------------------------------------------------ doctor


async def test_the_doctors_exit_code_says_how_bad_it_is(run: Run, scene: Scene) -> None:
    sick = run("doctor", "--json")
    assert sick.returncode == 4
    assert any(each["check"] == "relays" and each["severity"] == "bad" for each in sick.json)
    said = run("doctor").stdout
    assert "no relay is alive" in said
    assert "do:  start one: `" in said
    assert run("doctor", "--older-than", "soon").returncode == 2


def test_the_doctor_says_3_of_a_database_that_cannot_be_used(run: Run, database: Database) -> None:
    database.execute("DROP TABLE outbox_meta")
    assert run("doctor").returncode == 3
