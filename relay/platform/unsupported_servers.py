"""Recognising servers that speak PostgreSQL's language, and whose advisory locks lock nothing.

A relay owns what its session has locked. CockroachDB grants such a lock to every session that asks for it, and others
of this list refuse it or can be set to grant it to everybody: two relays would deliver everything twice.

Sources: https://www.cockroachlabs.com/docs/stable/functions-and-operators (the advisory lock functions have no effect);
https://docs.yugabyte.com/preview/explore/transactions/explicit-locking
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from outbox.errors import Unusable
from relay.platform.session_settings import ask_first

# What stands in the answer to `SELECT version()`. PostgreSQL's own begins with its name, as do those of servers that
# have real locks: EDB's, Amazon's, Google's and Microsoft's.
MARKS = {
    "CockroachDB": "CockroachDB",
    "-YB-": "YugabyteDB",
    "Materialize": "Materialize",
    "RisingWave": "RisingWave",
    "CrateDB": "CrateDB",
    "Redshift": "Amazon Redshift",
}
ASK = "SELECT version()"


def lockless_server(version: str) -> str | None:
    """Return the name of the server whose version this is, if its advisory locks lock nothing."""
    return next((name for mark, name in MARKS.items() if mark in version), None)


def refuse_lockless_server(version: str) -> None:
    """Make sure that the server's locks are locks.

    Args:
        version: What it answers to `ASK`.

    Raises:
        Unusable: They are not.
    """
    name = lockless_server(version)
    if name is not None:
        raise Unusable(
            f"the server is {name}, whose advisory locks lock nothing, so two relays would own the same messages: "
            "run the outbox on PostgreSQL 14 or newer"
        )


def watch(engine: sa.Engine) -> None:
    """Refuse such a server at each new connection of an engine, before anything else is asked."""

    def on_connect(connection: Any, _record: object) -> None:
        refuse_lockless_server(str(ask_first(connection, ASK)))

    sa.event.listen(engine, "connect", on_connect, insert=True)
