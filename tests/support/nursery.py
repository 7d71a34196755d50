"""Forks `outbox` processes: a parent that has imported everything starts one in milliseconds.

The test run has one such parent. Started as a program it reads one JSON array a line, `[arguments, environment,
directory, stdout, stderr]`, forks a child that is `outbox ARGUMENTS` except for how it started, and prints the
child's process id. When a child has ended, the parent writes its exit code to a file whose name is the process id.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

_INTERVAL_S = 0.01

# What these commands import late: it is imported before the first fork of each command.
_STORES = (
    "relay.databases.postgresql.store.session",
    "relay.databases.sqlite.store.session",
    "sqlalchemy.ext.asyncio",
    "psycopg.conninfo",
)
_KINDS = tuple(f"relay.destinations.{kind}.kind" for kind in ("http", "kafka", "listener", "nats", "rabbitmq", "redis"))
_SETTINGS = ("outbox_cli.terminal.settings", "relay.settings", "relay.observe.logging", *_KINDS)
_SENDING = (
    "relay.relay",
    "relay.observe.health",
    "relay.serving",
    "relay.destinations.http.destination",
    "relay.destinations.listener.destination",
    "listeners.baseline",
)
_IMPORTS = {
    "relay": (*_SETTINGS, *_STORES, *_SENDING),
    "serve": (*_SETTINGS, *_STORES, "relay.serving", "listeners.http", "listeners.baseline"),
    "consume": (*_SETTINGS, *_STORES, "relay.serving", "listeners.rabbitmq", "listeners.baseline"),
    "config": _SETTINGS,
    "dashboard": ("relay.serving", "outbox_cli.dashboard.app"),
    "demo": ("outbox_demo.demo", "relay.relay", "outbox_cli.dashboard.app", "listeners.baseline"),
    "extract": ("outbox_demo.worker",),
}

# Relays and their child processes find the tests' listeners there.
PATH = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))


class Child:
    """A forked `outbox`, with the methods of `subprocess.Popen` that the tests call."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code_path = _codes() / str(pid)
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal's number; None while it runs."""
        if self._code is None and self._code_path.exists():
            self._code = int(self._code_path.read_text())
        return self._code

    def wait(self, timeout: float = 60) -> int:
        """Wait for its end, and return what `poll` returns."""
        ends_at = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > ends_at:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(_INTERVAL_S)
        return code

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it ended just now, and its exit code is being written
            if self.poll() is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork(
    arguments: list[str], environment: Mapping[str, str], directory: Path, stdout: Path, stderr: Path | None = None
) -> Child:
    """Fork an `outbox ARGUMENTS` that works in `directory` and appends its output to files."""
    parent = _parent()
    assert parent.stdin is not None
    assert parent.stdout is not None
    order = [arguments, dict(environment), str(directory), str(stdout), str(stderr or stdout)]
    print(json.dumps(order), file=parent.stdin, flush=True)
    return Child(int(parent.stdout.readline()))


def close() -> None:
    """End the parent, if this run ever had one."""
    if _parent.cache_info().currsize:
        _parent().communicate()
        _parent.cache_clear()


@cache
def _codes() -> Path:
    """Return the directory of the exit codes."""
    from support.guardian import guardian

    directory = Path(tempfile.mkdtemp(prefix="outbox-codes-"))
    guardian().remove(directory)
    return directory


@cache
def _parent() -> subprocess.Popen[str]:
    from support.guardian import guardian

    process = subprocess.Popen(
        [sys.executable, "-P", __file__, str(_codes())],  # the folder of this file has a redis.py
        cwd="/",
        env={**os.environ, "PYTHONPATH": PATH, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    guardian().watch(process.pid)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise AssertionError(f"the nursery ended with {process.wait()}")
    return process


def _serve() -> None:
    built = import_module("support.built")
    built.get_command(import_module("outbox_cli.app").command_line())
    built.install()
    signal.signal(signal.SIGCHLD, _write_codes)
    print("ready", flush=True)
    for line in sys.stdin:
        arguments, *world = json.loads(line)
        for name in _IMPORTS.get(arguments[0], ()):
            import_module(name)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # no child's exit code is written before the removal
        pid = os.fork()
        if pid == 0:
            _become(arguments, *world)
        Path(sys.argv[1], str(pid)).unlink(missing_ok=True)  # the exit code of an earlier process with this id
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        print(pid, flush=True)


def _write_codes(*_: object) -> None:
    with suppress(ChildProcessError):  # no child is left
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            path = Path(sys.argv[1], str(pid))
            path.with_suffix(".new").write_text(str(os.waitstatus_to_exitcode(status)))
            path.with_suffix(".new").rename(path)


def _become(arguments: list[str], environment: dict[str, str], directory: str, stdout: str, stderr: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for fd, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644), fd)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(Path(sys.executable).with_name("outbox")), *arguments]
    _exit(_run())


def _run() -> Any:
    from outbox_cli import main

    try:
        main()
    except SystemExit as end:
        return end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _exit(code: Any) -> None:
    """End as an interpreter does, without the nursery's state."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve()
