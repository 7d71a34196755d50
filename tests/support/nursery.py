"""Forks `outbox relay` processes: a parent that has imported everything makes one in milliseconds.

Started as a program it reads one JSON array a line, `[arguments, environment, output]`, forks a child that is
`outbox ARGUMENTS` in every respect but its birth, and prints the child's process id.
"""

import json
import os
import signal
import sys
from typing import Any


def _serve() -> None:
    from relay.cli import app, relay  # noqa: F401 (what a relay needs is imported before the forks, and once)
    from relay.relay import Relay  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is gone at once
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become(*json.loads(line))
        print(pid, flush=True)


def _become(arguments: list[str], environment: dict[str, str], output: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    said = os.open(output, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ.update(environment)
    sys.argv = ["outbox", *arguments]
    _exit(_run())


def _run() -> Any:
    from relay.cli import main

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
