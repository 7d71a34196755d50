"""Provide every line with its databases, its processes, and the amount of work."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.postgres import Scratch
from benchmarks.results import Result
from benchmarks.rivals import Environment, Rival
from relay.databases.migrations import upgrade

ROOT = Path(__file__).parent.parent
PAYLOAD = "json_build_object('pad', repeat('x', 190))"  # 200 bytes, like the rivals'


@dataclass(frozen=True)
class Bench:
    """One run of the suite.

    Args:
        scratch: Where databases come from.
        rivals: Where the rivals are installed.
        rounds: How often every measurement is repeated, in turn.
        quick: Do a tenth of everything, to see that it works.
        seconds: How long the timed lines run; by default each line decides.
        messages: How many messages the lines with a backlog have; by default each line decides.
    """

    scratch: Scratch
    rivals: Environment
    rounds: int
    quick: bool = False
    seconds: float | None = None
    messages: int | None = None

    def many(self, count: int) -> int:
        """Return this number of messages, or the number from the command line."""
        return self.messages or (count // 10 if self.quick else count)

    def for_s(self, seconds: float) -> float:
        """Return this time, or the time from the command line."""
        return self.seconds or (max(seconds / 10, 5) if self.quick else seconds)

    def result(self, line: int, title: str, **ran: Any) -> Result:
        """Return an empty result with the description of the machine."""
        versions = {"server": self.scratch.server, "python": platform.python_version()}
        return Result(line, title, {**ran, "rounds": self.rounds, **versions})

    def outbox(self, name: str, messages: int = 0, key: str = "NULL") -> str:
        """Create a database with this number of ready messages; return its URL."""
        url = self.scratch.create(name)
        upgrade(url, only="outbox")
        if messages:
            insert(url, messages, key)
        return url


def insert(url: str, messages: int, key: str = "NULL", *, connection: psycopg.Connection[Any] | None = None) -> None:
    """Insert ready messages by SQL; ``key`` is an expression of ``n``."""
    statement = (
        "INSERT INTO outbox_message (id, type, source, ordering_key, data) "
        f"SELECT outbox_uuid7(), 'bench.message', 'bench', {key}, {PAYLOAD} FROM generate_series(1, {messages}) AS n"
    )
    if connection is not None:
        connection.execute(statement)  # type: ignore[call-overload]
        return
    with psycopg.connect(url) as own:
        own.execute(statement)  # type: ignore[call-overload]


def ours(action: str, url: str, *arguments: object) -> dict[str, Any]:
    """Run one action of `benchmarks.ours`; return what it printed."""
    command = [sys.executable, "-m", "benchmarks.ours", action, url, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_rival(bench: Bench, rival: Rival, action: str, url: str, *arguments: object) -> dict[str, Any]:
    """Run one action of a rival's worker; return what it printed."""
    command = bench.rivals.command(rival, action, url, *arguments)
    done = subprocess.run(command, cwd=bench.rivals.folder, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {}


class Worker:
    """A process that works until it is told to stop, and what it prints in the meantime."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        self.process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True)

    def line(self) -> dict[str, Any]:
        """Return the next line of its output."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def stop(self) -> list[dict[str, Any]]:
        """End the process; return what it has printed since."""
        self.process.terminate()
        output, _ = self.process.communicate(timeout=60)
        return [json.loads(line) for line in output.splitlines()]


@contextmanager
def working(command: list[str], cwd: Path) -> Iterator[Worker]:
    worker = Worker(command, cwd)
    try:
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.wait()


@contextmanager
def relay_at_work(url: str, *arguments: object) -> Iterator[Worker]:
    """Run a relay in a separate process."""
    command = [sys.executable, "-m", "benchmarks.ours", "work", url, *map(str, arguments)]
    with working(command, ROOT) as worker:
        worker.line()
        yield worker


def wait_until(what: Any, *, deadline_s: float = 60.0, every_s: float = 0.002) -> float:
    """Wait until a condition is true; return the seconds that took."""
    began_at = time.perf_counter()
    while not what():
        if time.perf_counter() - began_at > deadline_s:
            raise TimeoutError(f"the condition did not become true within {deadline_s:g} s")
        time.sleep(every_s)
    return time.perf_counter() - began_at


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
