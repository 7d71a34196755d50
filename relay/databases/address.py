"""Where a database is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from relay.observe.text import redacted


@dataclass(frozen=True)
class Address:
    """Where a database is, and where in it the outbox is.

    Args:
        url: The URL with its driver replaced by ours.
        schema: The PostgreSQL schema of the outbox; ``None`` follows the ``search_path``.
    """

    url: URL
    schema: str | None = None

    @property
    def path(self) -> Path:
        """The path of the file, if it is one."""
        assert self.url.database is not None
        return Path(self.url.database)

    def __str__(self) -> str:
        return redacted(self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=True))

    @property
    def place(self) -> str:
        """Where the outbox is, in words: the database, and the schema if one is set."""
        return f"schema {self.schema} of {self}" if self.schema else str(self)
