"""The demo as a newcomer runs it: one command, real documents, a sum that adds up."""

import re
import shutil
import signal
import sys
from pathlib import Path

import httpx
import pytest
from support.databases import Database
from support.processes import Process, Spawner
from support.waiting import eventually

from outbox_demo.packages import installed_descriptions

CONTENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
TEXT = """
A relay owns shards. The relay reads messages of its shards and delivers the messages to destinations.
Every message is delivered to the destinations that want it. A destination that is down is paused.
"""


def demo(spawn: Spawner, *paths: str, database: Database | None = None) -> Process:
    process = spawn("outbox", "demo", *paths, env={"DATABASE_URL": database.url} if database else {})
    process.wait(deadline_s=60)
    return process


def write_documents(directory: Path) -> None:
    docs = directory / "docs"
    (docs / "deeper").mkdir(parents=True)
    (docs / "relay.txt").write_text(TEXT)
    (docs / "deeper" / "shards.md").write_text(f"# About shards\n\n{TEXT}")
    (docs / "page.html").write_text(f"<html><title>A page</title><body><p>{TEXT}</p></body></html>")
    (docs / "empty.txt").touch()
    (docs / "binary.txt").write_bytes(bytes(range(256)))
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 nothing more")
    for n in range(5):
        (docs / f"picture-{n}.png").write_bytes(b"\x89PNG")


def test_on_a_bare_machine_it_creates_everything_and_adds_up(spawn: Spawner, tmp_path: Path) -> None:
    process = demo(spawn)
    assert process.returncode == 0, process.report()
    assert process.stderr.startswith("Loading the demo"), "it says so before the slow imports"
    (committed, delivered, waiting, dead) = re.findall(
        r"(\d+) messages? committed = (\d+) delivered, (\d+) waiting, (\d+) dead", process.stdout
    )[0]
    assert int(committed) == int(delivered) >= 5
    assert (waiting, dead) == ("0", "0")
    assert f"The database is {tmp_path}/outbox.db" in process.stdout
    again = re.findall(r"^  (\S*outbox) (status|messages|demo)", process.stdout, re.MULTILINE)
    assert [Path(shutil.which(program) or "") for program, _ in again] == [Path(sys.executable).with_name("outbox")] * 3
    again = demo(spawn)
    assert again.returncode == 0
    assert "Everything is already known" in again.stdout
    assert f"0 extracted, {committed} already known" in again.stdout


def test_the_users_own_documents_become_graphs_and_bad_ones_are_named(
    spawn: Spawner, tmp_path: Path, database: Database
) -> None:
    write_documents(tmp_path)
    process = demo(spawn, "docs", "nowhere.txt", database=database)
    assert process.returncode == 1, process.report()  # for nowhere.txt, which was named on the command line
    assert "12 documents: 3 extracted, 0 already known, 9 skipped." in process.stdout
    assert "3 messages committed = 3 delivered, 0 waiting, 0 dead." in process.stdout
    for name in ("empty.txt", "binary.txt", "broken.pdf", "nowhere.txt"):
        assert re.search(rf"^Skipped .*{name}: ", process.stderr, re.MULTILINE)
    (pictures,) = re.findall(r"^Skipped .*picture.*", process.stderr, re.MULTILINE)
    assert re.fullmatch(r"Skipped 5 files of other kinds .*: (picture-\d.png, ){3}…", pictures)
    assert database.scalar("SELECT count(*) FROM topic_graphs WHERE type = 'BASELINE' AND node_count > 0") == 3
    assert database.scalar("SELECT count(*) FROM outbox_message") == 0

    (tmp_path / "docs" / "relay.txt").write_text(TEXT.replace("relay", "worker"))
    changed = demo(spawn, "docs", database=database)
    assert "1 extracted, 2 already known" in changed.stdout
    assert "1 message committed = 1 delivered" in changed.stdout


def test_the_demo_opens_a_dashboard_on_its_database(spawn: Spawner, tmp_path: Path) -> None:
    """The browser is a program that notes the address that it is given."""
    browser, address = tmp_path / "browser", tmp_path / "address"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" >"{address}.new" && mv "{address}.new" "{address}"\n')
    browser.chmod(0o755)
    token = "token-of-the-operator-" + "t" * 24
    process = spawn("outbox", "demo", "--open", env={"BROWSER": str(browser), "OUTBOX_DASHBOARD_TOKEN": token})
    eventually(address.exists, deadline_s=60, what="a browser is opened")
    headers = {"Authorization": f"Bearer {token}"}

    def overview() -> httpx.Response:
        return httpx.get(f"{address.read_text()}overview.json", headers=headers, timeout=60, verify=False)

    eventually(lambda: overview().status_code == 200, ignoring=(httpx.TransportError,))
    (delivered,) = re.findall(r"committed = (\d+) delivered", process.stdout)
    found = httpx.get(f"{address.read_text()}messages.json", headers=headers, timeout=60, verify=False).json()
    assert int(delivered) > 0, found
    process.interrupt()
    assert process.wait() == 0, process.report()


def test_nothing_readable_at_all_is_a_failure(spawn: Spawner) -> None:
    process = demo(spawn, "nowhere.txt")
    assert process.returncode == 1
    assert "nowhere.txt: does not exist" in process.stderr


def test_what_an_interrupted_demo_committed_the_next_one_delivers(spawn: Spawner, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for i in range(100):
        (docs / f"{i}.txt").write_text(f"Document {i}. {TEXT}")
    process = spawn("outbox", "demo", "docs")
    process.wait_for_output("Reading 100 documents", deadline_s=30)
    process.interrupt()
    assert process.wait(deadline_s=30) == 130
    assert "Traceback" not in process.stderr
    again = demo(spawn, "docs")
    assert again.returncode == 0, again.report()
    assert re.search(r"(\d+) messages committed = \1 delivered, 0 waiting, 0 dead", again.stdout)


def test_extract_commits_and_a_relay_delivers(spawn: Spawner, tmp_path: Path, database: Database) -> None:
    write_documents(tmp_path)
    environ = {"DATABASE_URL": database.url, "OUTBOX_HEALTH_PORT": "0"}
    extract = spawn("outbox", "extract", "docs", env=environ)
    assert extract.wait() == 0, extract.report()
    assert len(extract.stdout.splitlines()) == 3
    assert "3 messages committed" in extract.stderr
    assert database.scalar("SELECT count(*) FROM outbox_message") == 3
    missing = spawn("outbox", "content", "missing", env=environ)
    assert missing.wait() == 0
    assert len(missing.stdout.splitlines()) == 3
    relay = spawn("outbox", "relay", "--drain", env=environ)
    assert relay.wait() == 0, relay.report()
    assert "Baseline auto-build complete" in relay.stderr
    assert database.scalar("SELECT count(*) FROM topic_graphs") == 3


def test_missing_baselines_can_be_asked_for_again(spawn: Spawner, tmp_path: Path, sqlite_database: Database) -> None:
    write_documents(tmp_path)
    environ = {"DATABASE_URL": sqlite_database.url, "OUTBOX_HEALTH_PORT": "0"}
    assert spawn("outbox", "extract", "docs", env=environ).wait() == 0
    sqlite_database.execute("DELETE FROM outbox_message")
    again = spawn("outbox", "content", "missing", "--emit", env=environ)
    assert again.wait() == 0
    assert "emitted 3 messages" in again.stderr
    assert spawn("outbox", "relay", "--drain", env=environ).wait() == 0
    assert sqlite_database.scalar("SELECT count(*) FROM topic_graphs") == 3
    none = spawn("outbox", "content", "missing", env=environ)
    assert none.wait() == 0
    assert none.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_extract_can_be_stopped_at_any_time(
    spawn: Spawner, tmp_path: Path, sqlite_database: Database, number: int
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for i in range(300):
        (docs / f"{i}.txt").write_text(f"Document {i}. {TEXT}")
    process = spawn("outbox", "extract", "docs", env={"DATABASE_URL": sqlite_database.url})
    process.wait_for_output("topics", deadline_s=30)
    process._signal_group(signal.Signals(number))
    process.wait()
    assert "Traceback" not in process.stderr
    rows = sqlite_database.scalar("SELECT count(*) FROM extractions")
    assert rows == sqlite_database.scalar("SELECT count(*) FROM outbox_message")


def test_installed_packages_describe_themselves_the_same_way_each_time() -> None:
    documents = installed_descriptions()

    assert documents == installed_descriptions()
    assert 10 <= len(documents) <= 30
    assert all(CONTENT_ID.fullmatch(document.id) and len(document.text) >= 600 for document in documents)
    assert len({document.id for document in documents}) == len(documents)
    assert [document.id for document in documents] == sorted(document.id for document in documents)
