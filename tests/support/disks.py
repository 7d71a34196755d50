"""Disks for a private PostgreSQL that are full when the test says so.

A real one is a small file system in memory, which needs the right to mount. Without that right, a limit on the size of
files has the same effect on a server whose tables have reached it: they cannot grow, and nothing else changes.
"""

import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Protocol

from support.guardian import guardian
from support.postgres import PostgresServer, give_to_account, run_as_account

MOUNTED_BYTES = 192 * 1024**2
SEGMENT_BYTES = 16 * 1024**2  # of PostgreSQL's log: no file may be limited to less


class Disk(Protocol):
    """Where a server has its files.

    Attributes:
        home: For the server's directory; None where any will do.
        reached_bytes: How large the tables have to be before the disk can be full for them.
    """

    home: Path | None
    reached_bytes: int

    def fill(self, server: PostgresServer) -> None: ...
    def make_room(self, server: PostgresServer) -> None: ...
    def close(self) -> None: ...


class MountedDisk:
    """A separate file system, filled with ballast to the last byte."""

    reached_bytes = 0

    def __init__(self) -> None:
        self.home: Path | None = Path(tempfile.mkdtemp(prefix="outbox-disk-", dir="/tmp"))
        guardian().remove(self.home)
        _mount(self.home)
        give_to_account(self.home)
        self._ballast = self.home / "ballast"

    def fill(self, server: PostgresServer) -> None:
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (1024**2, 1):
                try:
                    while True:
                        ballast.write(b"x" * size)
                except OSError:
                    continue

    def make_room(self, server: PostgresServer) -> None:
        self._ballast.unlink()

    def close(self) -> None:
        assert self.home is not None
        subprocess.run(["umount", "--lazy", self.home], check=False)
        self.home.rmdir()


class LimitedFiles:
    """No file of the server may grow beyond the size of a segment of its log."""

    home: Path | None = None
    reached_bytes = SEGMENT_BYTES

    def fill(self, server: PostgresServer) -> None:
        _limit(server, str(SEGMENT_BYTES))

    def make_room(self, server: PostgresServer) -> None:
        _limit(server, "unlimited")

    def close(self) -> None:
        pass


@cache
def kinds() -> list[type[Disk]]:
    """Return the kinds of disk that this machine permits."""
    return [LimitedFiles, *([MountedDisk] if _may_mount() else [])]


def _may_mount() -> bool:
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as directory:
        try:
            _mount(Path(directory))
        except (subprocess.CalledProcessError, FileNotFoundError):
            return False
        subprocess.run(["umount", directory], check=True)
    return True


def _mount(directory: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", f"size={MOUNTED_BYTES}", "tmpfs", directory]
    subprocess.run(command, check=True, capture_output=True)


def _limit(server: PostgresServer, size: str) -> None:
    """Limit the file size of the server's running processes; new ones inherit the postmaster's limit."""
    for process in server.processes:
        try:
            run_as_account("prlimit", f"--pid={process.pid}", f"--fsize={size}:")
        except RuntimeError:  # a session's process may end meanwhile
            if process.is_running():
                raise
