"""A PostgreSQL that cannot open one of its files: the relay waits, says so once, and goes on by itself."""

from pathlib import Path

import pytest
from support.commands import Run, runner
from support.databases import Database
from support.fleet import Fleet
from support.processes import Spawner
from support.reckoning import unsettled
from support.waiting import eventually
from support.workload import Workload

OTHERS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capfd)


def test_a_file_that_the_server_may_not_open_ends_no_relay_and_is_no_missing_right(
    server, server_database: Database, fleet: Fleet, run: Run, spawn: Spawner
) -> None:
    """As on a disk that was remounted read-only. The relay used to end, and to ask for rights that it had."""
    fleet.configure(server_database.url, beat_s=0.2)
    workload = Workload(server_database.engine, 1)
    relay = fleet.start()
    workload.commit(50)
    eventually(lambda: unsettled(server_database) == 0, what="it delivers")
    file: Path = server.data / server_database.scalar("SELECT pg_relation_filepath('outbox_message')")
    with server.connect() as connection:
        connection.execute("CHECKPOINT")
        file.chmod(0)
        try:
            connection.execute(f"SELECT pg_terminate_backend(pid) {OTHERS}")  # a new session has to open the file
            server_database.dispose()
            opened = "SELECT last_value FROM outbox_relay_number_seq"
            eventually(lambda: "database_damaged" in relay.output, what="it says why it waits")
            before = server_database.scalar(opened)
            eventually(
                lambda: server_database.scalar(opened) > before + 2, deadline_s=30, what="it tries again, and again"
            )
            assert relay.output.count("database_damaged") == 1  # beside peers, a turn may work: it reads nothing
            for command in (["status"], ["doctor"], ["messages", "list"]):
                asked = run(*command, url=server_database.url)
                assert asked.returncode == 3, asked.report()
                assert "db grants" not in asked.stderr, asked.report()
            for processes in ("1", "2"):
                drain = spawn("outbox", "relay", "--drain", "--processes", processes, env=fleet.env)
                assert drain.wait() != 0, drain.report()
                assert "could not open file" in drain.stderr, drain.report()
        finally:
            file.chmod(0o600)
    workload.commit(50)
    eventually(lambda: unsettled(server_database) == 0, deadline_s=30, what="it goes on by itself")
    assert {send.id for send in fleet.sends()} == set(workload.committed())
    assert "db grants" not in relay.output
