"""The lock by which a relay shows that it is alive: a lock of the operating system on a file beside the database's.

It ends when the process ends for any reason.
"""

from __future__ import annotations

import fcntl
from pathlib import Path


def side_file(path: Path) -> Path:
    """Return the file beside an SQLite database that the database's owner locks."""
    return path.with_name(path.name + ".relay.lock")


def is_owned(path: Path) -> bool | None:
    """Return whether a relay owns this SQLite file now; ``None`` if this process may not find out.

    It takes a shared lock for a moment. A relay that starts at that moment tries again.
    """
    try:
        with side_file(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False  # no relay has run yet
    except OSError:
        return None
    return False
