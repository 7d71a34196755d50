"""Where the tests write: in memory, if it has room. The data is disposable, and a disk takes 10 ms for each fsync."""

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

_ROOM_BYTES = 4 * 1024**3


@cache
def memory() -> Path:
    """Return a directory where writing is cheap: a new database takes 20 ms, and 130 to 480 on a busy disk."""
    shared_memory = Path("/dev/shm")
    return shared_memory if _is_of_use(shared_memory) else disk()


def disk() -> Path:
    return Path(tempfile.gettempdir())


def _is_of_use(directory: Path) -> bool:
    """Return whether a directory has room, and may have programs: tests install some."""
    if not directory.is_dir():
        return False
    may_execute = not os.statvfs(directory).f_flag & os.ST_NOEXEC
    return may_execute and shutil.disk_usage(directory).free >= _ROOM_BYTES
