"""The locks by which a relay shows that it is alive.

On PostgreSQL it holds *session* advisory locks of one class: one for its presence, and one for each of its shards.
On SQLite it holds an operating-system lock on a file beside the database's. Both end with the session, for any cause.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

LOCK_CLASS = """
SELECT hashtext(n.nspname || '.outbox_message') FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace
WHERE t.oid = to_regclass('outbox_message')
"""


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
