"""Run all checks, one after another. A check only reads."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from outbox.errors import SchemaError
from relay.admin.access.queries import snapshot
from relay.admin.doctor import outbox
from relay.databases.dialect import dialect_of
from relay.databases.schema import check_schema
from relay.platform.finding import Finding, bad, ok


def examine(engine: sa.Engine, *, lease_s: float, older_than_s: float) -> list[Finding]:
    """Return all findings about an outbox and its database.

    Args:
        engine: The outbox's database, as a relay would connect to it.
        lease_s: The relays' lease.
        older_than_s: A message that has been due for longer is late, in seconds.
    """
    return list(_findings(engine, lease_s, older_than_s))


def _findings(engine: sa.Engine, lease_s: float, older_than_s: float) -> Iterator[Finding]:
    dialect = dialect_of(engine)
    schema = _schema(engine)
    yield schema
    yield from dialect.examine_server(engine, lease_s)
    if schema.severity == "bad":
        return  # every other check would only report again that the tables are missing
    yield from dialect.examine_tables(engine)
    with snapshot(engine) as connection:
        yield from outbox.contents(connection, lease_s=lease_s, older_than_s=older_than_s)


def _schema(engine: sa.Engine) -> Finding:
    try:
        with engine.connect() as connection:
            check_schema(connection)
    except SchemaError as error:
        what, _, remedy = str(error).partition(": ")
        return bad("schema", what, "without tables that it knows, this release neither emits nor delivers", remedy)
    return ok("schema", "this release can use it")
