"""Check which schema version a database has, and whether this release can use it. Alembic is not needed."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

import outbox
from outbox.errors import SchemaError
from outbox.schema import VERSION_TABLE
from relay.databases.dialect import dialect_of
from relay.databases.rights import USAGE, Right

CONTENT_TABLES = ("contents", "extractions", "topic_graphs")

SCHEMA_VERSION = 2
NO_VERSION = (0, "0")  # for a database whose outbox_meta is empty
SAYS_VERSION = f"INSERT INTO outbox_meta VALUES ({SCHEMA_VERSION}, '{outbox.__version__}')"  # noqa: S608 (for a person)


def check_schema(connection: sa.Connection, place: str = "this database") -> None:
    """Refuse a schema that this release cannot use.

    Args:
        connection: A connection to the outbox's database.
        place: The database in words, if the reader may know it.

    Raises:
        SchemaError: The text says what was found and which command to run.
    """
    if not sa.inspect(connection).has_table("outbox_meta"):
        # Without USAGE, the schema looks as if it did not exist.
        dialect_of(connection).refuse_without(connection, [USAGE])
        raise SchemaError(f"{place} has no outbox: run `outbox db upgrade`")
    found = connection.exec_driver_sql("SELECT schema_version, oldest_release FROM outbox_meta").first()
    verify_version(*(found or NO_VERSION))


def check_content(connection: sa.Connection, needs: Iterable[Right]) -> None:
    """Refuse content tables of another application, if these rights are about content.

    Raises:
        SchemaError: The content tables are not ours, or do not exist.
    """
    if not any(right.kind == "TABLE" and right.name in CONTENT_TABLES for right in needs):
        return
    versions: list[str] = []
    if sa.inspect(connection).has_table(VERSION_TABLE):
        versions = list(connection.scalars(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")))  # noqa: S608 (a constant)
    if not any(version.startswith("content_") for version in versions):
        raise SchemaError(
            "the baseline listener (the default if no destination is configured) and `outbox extract` need tables "
            f"named {', '.join(CONTENT_TABLES)}, and the outbox has not created them here: name your destinations in "
            "outbox.toml, or run `outbox db upgrade`, which refuses to work where the application has such tables"
        )


def verify_version(version: int, oldest_release: str) -> None:
    """Compare a database's version with the version that this release needs."""
    if (version, oldest_release) == NO_VERSION:
        raise SchemaError(
            "outbox_meta is empty, so the schema's version is unknown; its row was deleted, perhaps with other data: "
            f"run `outbox db upgrade`, and if that does nothing, restore the row: {SAYS_VERSION}"
        )
    if version < SCHEMA_VERSION:
        raise SchemaError(
            f"the schema is at version {version} and this release needs {SCHEMA_VERSION}: run `outbox db upgrade`"
        )
    if _numbers(oldest_release) > _numbers(outbox.__version__):
        raise SchemaError(
            f"the schema (version {version}) needs release {oldest_release} or newer, and this is "
            f"{outbox.__version__}: use release {oldest_release} or newer, from the source that this one came from"
        )


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".")[:3] if part.isdigit())
