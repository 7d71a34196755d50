"""A private server for the test run, which a test can start, stop, kill and freeze.

It has its own data, log and port, on the loopback address. The program is the machine's: without it the tests that
need it are skipped, and say so; CI installs it.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from support.guardian import guardian
from support.memory import memory
from support.ports import free_port
from support.waiting import await_standstill, eventually

_START_S = 60


class Startable(Protocol):
    def start(self) -> None: ...
    def remove(self) -> None: ...


class Shared(Protocol):
    def recover(self) -> None: ...
    def thaw(self) -> None: ...


Started = TypeVar("Started", bound=Startable)
Lent = TypeVar("Lent", bound=Shared)


@contextmanager
def running(server: Started) -> Iterator[Started]:
    """Start a server, and remove it afterwards, even if it did not start."""
    try:
        server.start()
        yield server
    finally:
        server.remove()


@contextmanager
def lent(server: Lent) -> Iterator[Lent]:
    """Lend a shared server to one test: it works before the test, and is not left frozen after it."""
    server.recover()
    yield server
    server.thaw()


@cache
def program(name: str, package: str) -> str:
    """Return the path of a program; skip the test without it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        pytest.skip(f"there is no {name} on this machine: install it (apt-get install {package})")
    return found


class Server:
    """One server, which a test can stop, kill, freeze and start again on the same data and port.

    Args:
        name: Its name, in the name of its folder and in messages.
    """

    host = "127.0.0.1"

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix=f"outbox-{name}-", dir=memory()))
        guardian().remove(self.directory)
        self.log_path = self.directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._is_frozen = False

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Return whether it accepts connections."""
        socket.create_connection((self.host, self.port), 1).close()
        return True

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and return when it takes connections."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.command()),
                cwd=self.directory,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        guardian().watch(self._process.pid)
        eventually(self._is_up, deadline_s=_START_S, what=f"{self.name} on port {self.port}", ignoring=(OSError,))

    def kill(self) -> None:
        """SIGKILL: nothing is closed, nothing is flushed."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: an orderly stop."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP the server: connections stay open without an answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self._is_frozen = True
        await_standstill(self._process.pid)

    def thaw(self) -> None:
        if self._is_frozen and self._process is not None:
            self._process.send_signal(signal.SIGCONT)
        self._is_frozen = False

    def recover(self) -> None:
        """Make it run, thawed, after any earlier test."""
        self.thaw()
        if not self.is_running:
            self.start()

    def remove(self) -> None:
        self.thaw()
        if self.is_running:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Keep the server killed inside the block."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def _is_up(self) -> bool:
        if not self.is_running:
            raise RuntimeError(f"{self.name} ended:\n{self.log[-4000:]}")
        return self.answers()

    def _end(self, ending: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(ending)
        self._process.wait(60)
        if self._process.stdin is not None:
            self._process.stdin.close()
        guardian().forget(self._process.pid)
