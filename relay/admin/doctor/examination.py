"""Run all checks, one after another. A check only reads."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from outbox.errors import SchemaError
from relay.admin.access.queries import snapshot
from relay.admin.doctor import outbox, postgres, sqlite, strangers
from relay.admin.doctor.finding import Finding, bad, ok
from relay.platform.schema import check_schema


def examine(engine: sa.Engine, *, lease_s: float, older_than_s: float) -> list[Finding]:
    """Return all findings about an outbox and its database.

    Args:
        engine: The outbox's database, as a relay would connect to it.
        lease_s: The relays' lease.
        older_than_s: A message that has been due for longer is late, in seconds.
    """
    return list(_findings(engine, lease_s, older_than_s))


def _findings(engine: sa.Engine, lease_s: float, older_than_s: float) -> Iterator[Finding]:
    on_postgres = engine.dialect.name == "postgresql"
    schema = _schema(engine)
    yield schema
    if on_postgres:
        yield from postgres.server(engine, lease_s)
    else:
        yield from sqlite.file(engine)
    if schema.severity == "bad":
        return  # every other check would only report again that the tables are missing
    if on_postgres:
        yield from postgres.tables_(engine)
        yield from strangers.strangers(engine)
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
