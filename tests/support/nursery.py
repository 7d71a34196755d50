"""Forks `outbox relay` processes: a parent that has imported everything makes one in milliseconds.

The test run has one such parent. Started as a program it reads one JSON array a line, `[arguments, environment,
directory, output]`, forks a child that is `outbox ARGUMENTS` in every respect but its birth, and prints the child's
process id.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

# Listeners of the tests are found there, by relays and by what these start.
PATH = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))


def fork(arguments: list[str], environment: Mapping[str, str], directory: Path, output: Path) -> int:
    """Fork an `outbox ARGUMENTS` that works in `directory` and says what it says in `output`; its process id."""
    parent = _parent()
    assert parent.stdin is not None
    assert parent.stdout is not None
    print(json.dumps([arguments, dict(environment), str(directory), str(output)]), file=parent.stdin, flush=True)
    return int(parent.stdout.readline())


def close() -> None:
    """End the parent, if this run ever had one."""
    if _parent.cache_info().currsize:
        _parent().communicate()
        _parent.cache_clear()


@cache
def _parent() -> subprocess.Popen[str]:
    from support.guardian import guardian

    process = subprocess.Popen(
        [sys.executable, __file__],
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
        raise AssertionError(f"the nursery of relays ended with {process.wait()}")
    return process


def _serve() -> None:
    from outbox_cli import app  # noqa: F401 (what a relay needs is imported before the forks, and once)
    from relay.relay import Relay  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # an ended process leaves no zombie
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become(*json.loads(line))
        print(pid, flush=True)


def _become(arguments: list[str], environment: dict[str, str], directory: str, output: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    said = os.open(output, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["outbox", *arguments]
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
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    _serve()
