"""Fixtures of the integration tests: commands (`support.commands`) and relays."""

from pathlib import Path

import pytest
from support.commands import Ended, Run, runner
from support.processes import Spawner

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
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`run("status", "--json", url=database.url)` runs one command."""
    return runner(monkeypatch, capfd)


@pytest.fixture
def relay(spawn: Spawner) -> Run:
    """`relay("--drain", url=database.url)` runs one relay, in a separate process, to its end."""

    def run(*arguments: str, url: str | None = None, **environ: str) -> Ended:
        process = spawn("outbox", "relay", *arguments, env=({"DATABASE_URL": url} if url else {}) | environ)
        return Ended(process.wait(deadline_s=60), process.stdout, process.stderr)

    return run


@pytest.fixture
def printer(tmp_path: Path) -> None:
    """A listener in the current directory that prints what it takes."""
    (tmp_path / "printing_listener.py").write_text(LISTENER)
    (tmp_path / "outbox.toml").write_text(CONFIG)
