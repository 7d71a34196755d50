"""The lock by which a relay shows that it is alive: of the operating system, on a file beside the database's.

It ends with the process, for any cause.
"""

from __future__ import annotations

import fcntl
from pathlib import Path


def side_file(path: Path) -> Path:
    """Return the file beside an SQLite database that its owner has locked."""
    return path.with_name(path.name + ".relay.lock")


def is_owned(path: Path) -> bool | None:
    """Return whether a relay owns this SQLite file now; ``None`` if this process has no right to ask.

    It takes a shared lock for a moment. A relay that starts at that moment tries again.
    """
    try:
        with side_file(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False  # there was no relay yet
    except OSError:
        return None
    return False
