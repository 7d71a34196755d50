"""Ends the processes that a test run leaves behind when it dies.

Fixtures stop what they started. They do not run when pytest itself is killed (a second Ctrl-C,
`timeout`, the machine's out-of-memory killer), and a forgotten PostgreSQL or relay would then compete with
the next run. So a small separate process reads from a pipe which processes to watch; when the pipe closes,
its parent is gone and it ends every process on the list.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path


class Guardian:
    """The test run's end of the pipe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd="/",
        )

    def watch(self, pid: int, ending: signal.Signals = signal.SIGKILL) -> None:
        """Have the process group of `pid` ended with the signal `ending` if this run dies."""
        self._say(f"watch {pid} {int(ending)}")

    def forget(self, pid: int) -> None:
        """Forget `pid`, which has ended in order."""
        self._say(f"forget {pid} 0")

    def remove(self, directory: Path) -> None:
        """Have `directory` removed when this run is over, however it ends."""
        self._say(f"remove {directory}")

    def dismiss(self) -> None:
        """End every process on the list, because this run is over."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _say(self, line: str) -> None:
        if self._process.stdin is not None:
            print(line, file=self._process.stdin, flush=True)


@cache
def guardian() -> Guardian:
    """Return the only guardian of this test run."""
    return Guardian()


def dismiss_guardian() -> None:
    """Dismiss the guardian if this run ever had one."""
    if guardian.cache_info().currsize:
        guardian().dismiss()
        guardian.cache_clear()


def _keep_watch() -> None:
    watched: dict[int, tuple[int, str | None]] = {}
    directories: list[str] = []
    for line in sys.stdin:
        word, rest = line.rstrip("\n").split(" ", 1)
        if word == "remove":
            directories.append(rest)
            continue
        pid, ending = map(int, rest.split())
        if word == "watch":
            watched[pid] = ending, _started_at(pid)
        else:
            watched.pop(pid, None)
    # A process that ended unnoticed may have left its id to one of another run.
    ours = {pid: ending for pid, (ending, started_at) in watched.items() if _started_at(pid) in (started_at, None)}
    for pid, ending in ours.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, ending)
            os.killpg(pid, signal.SIGCONT)
    _wait_until_gone(ours)
    for directory in directories:
        if os.path.ismount(directory):
            subprocess.run(["umount", "--lazy", directory], check=False)
        shutil.rmtree(directory, ignore_errors=True)


def _started_at(pid: int) -> str | None:
    """Return when a process started, in clock ticks since the machine did; ``None`` if there is none with this id."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _wait_until_gone(pids: Iterable[int]) -> None:
    """Wait until a server has ended: it would otherwise write into the directory that is being removed."""
    ends_at = time.monotonic() + 10
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < ends_at:
                os.kill(pid, 0)
                time.sleep(0.02)


if __name__ == "__main__":
    _keep_watch()
