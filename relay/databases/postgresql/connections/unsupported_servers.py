"""Recognise servers that speak PostgreSQL's protocol and whose advisory locks lock nothing.

A relay owns the shards that its session has locked. CockroachDB grants such a lock to every session; other servers of
this list refuse it, or can be configured to grant it to every session. Two relays would then deliver everything twice.

Sources: https://www.cockroachlabs.com/docs/stable/functions-and-operators (the advisory lock functions have no effect);
https://docs.yugabyte.com/preview/explore/transactions/explicit-locking
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from outbox.errors import Unusable
from relay.databases.postgresql.connections.session_settings import ask_first

# Markers in the answer to `SELECT version()`. PostgreSQL's own answer begins with its name, as does that of servers
# with real locks: EDB's, Amazon's, Google's and Microsoft's.
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
    """Return the name of the server with this version, if its advisory locks lock nothing."""
    return next((name for mark, name in MARKS.items() if mark in version), None)


def refuse_lockless_server(version: str) -> None:
    """Check that the server's advisory locks work.

    Args:
        version: The server's answer to `ASK`.

    Raises:
        Unusable: They lock nothing.
    """
    name = lockless_server(version)
    if name is not None:
        raise Unusable(
            f"the server is {name}, whose advisory locks lock nothing, so two relays would own the same messages: "
            "run the outbox on PostgreSQL 14 or newer"
        )


def watch(engine: sa.Engine) -> None:
    """Check the server at each new connection of an engine, before any other statement."""

    def on_connect(connection: Any, _record: object) -> None:
        refuse_lockless_server(str(ask_first(connection, ASK)))

    sa.event.listen(engine, "connect", on_connect, insert=True)
