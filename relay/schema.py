"""Which schema a database has, and whether this release can use it. Alembic is not needed to know."""

from __future__ import annotations

import sqlalchemy as sa

import outbox
from outbox.errors import SchemaError
from relay.rights import USAGE, refuse_without

SCHEMA_VERSION = 1
NO_VERSION = (0, "0")  # of a database whose outbox_meta is empty
SAYS_VERSION = f"INSERT INTO outbox_meta VALUES ({SCHEMA_VERSION}, '{outbox.__version__}')"  # noqa: S608 (it is for a person)


def check_schema(connection: sa.Connection) -> None:
    """Refuse a schema that this release cannot use.

    Raises:
        SchemaError: Says what was found and which command to run.
    """
    if not sa.inspect(connection).has_table("outbox_meta"):
        refuse_without(connection, [USAGE])  # what it may not use is as if it were not there
        raise SchemaError("this database has no outbox: run `outbox db upgrade`")
    found = connection.exec_driver_sql("SELECT schema_version, oldest_release FROM outbox_meta").first()
    verify_version(*(found or NO_VERSION))


def verify_version(version: int, oldest_release: str) -> None:
    """Compare what a database says of itself with what this release needs."""
    if (version, oldest_release) == NO_VERSION:
        raise SchemaError(
            "outbox_meta is empty, so nothing says which schema this is; somebody emptied it, perhaps with all others: "
            f"run `outbox db upgrade`, and if that has nothing to do, put back what it held, with {SAYS_VERSION}"
        )
    if version < SCHEMA_VERSION:
        raise SchemaError(
            f"the schema is at version {version} and this release needs {SCHEMA_VERSION}: run `outbox db upgrade`"
        )
    if _numbers(oldest_release) > _numbers(outbox.__version__):
        raise SchemaError(
            f"the schema (version {version}) may be used from release {oldest_release} on and this is "
            f"{outbox.__version__}: use release {oldest_release} or newer, from the source that this one came from"
        )


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".")[:3] if part.isdigit())
