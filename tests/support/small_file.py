"""A listener whose relay finds its SQLite file full while there is a file at RECORD_FULL_PATH.

Only relays may import it: from then on each connection of the process checks, before each transaction, whether the
database may grow. The file at that path grows by one byte with each transaction that is tried.
"""

import functools
import os
import sqlite3
from pathlib import Path
from typing import Any

from support.recording import record

__all__ = ["SmallFile", "record"]


class SmallFile(sqlite3.Connection):
    """A connection to a file that may be full."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql.startswith("BEGIN"):
            full = Path(os.environ["RECORD_FULL_PATH"])
            super().execute(f"PRAGMA max_page_count = {1 if full.exists() else 2**32 - 2}").close()
            if full.exists():
                with full.open("ab") as tries:
                    tries.write(b"x")
        return super().execute(sql, *parameters)


sqlite3.connect = functools.partial(sqlite3.connect, factory=SmallFile)
