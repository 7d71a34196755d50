"""Check which schema version a database has, and whether this release can use it. Alembic is not needed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

import outbox
from outbox.errors import SchemaError
from outbox.schema import VERSION_TABLE
from outbox.tables import tables
from relay.platform.rights import USAGE, Right, refuse_without

CONTENT_TABLES = ("contents", "extractions", "topic_graphs")

SCHEMA_VERSION = 2
FIRST_VERSION = 2  # the first released version; no migration starts from earlier ones
NO_VERSION = (0, "0")  # for a database whose outbox_meta is empty
SAYS_VERSION = f"INSERT INTO outbox_meta VALUES ({SCHEMA_VERSION}, '{outbox.__version__}')"  # noqa: S608 (it is for a person)


def check_schema(connection: sa.Connection, place: str = "this database") -> None:
    """Refuse a schema that this release cannot use.

    Args:
        connection: To the outbox's database.
        place: The database in words, if the reader may know it.

    Raises:
        SchemaError: The text says what was found and which command to run.
    """
    if not sa.inspect(connection).has_table("outbox_meta"):
        refuse_without(connection, [USAGE])  # without USAGE, the schema looks as if it did not exist
        raise SchemaError(f"{place} has no outbox: run `outbox db upgrade`")
    found = connection.exec_driver_sql("SELECT schema_version, oldest_release FROM outbox_meta").first()
    verify_version(*(found or NO_VERSION))


def refuse_former_shape(connection: sa.Connection, schema: str | None) -> None:
    """Refuse an outbox from before the first release: its tables have the same names and other columns.

    Raises:
        SchemaError: The text says so, and what to do with the messages in it.
    """
    found = connection.scalar(sa.select(tables(schema).meta.c.schema_version))
    if found is not None and found < FIRST_VERSION:
        raise _former_shape(found)


def _former_shape(version: int) -> SchemaError:
    return SchemaError(
        f"the outbox of this database has schema version {version}, which was made before the first release and cannot "
        "be migrated, so nothing was changed. Deliver what waits there with the code that made it "
        "(`outbox relay --drain`), set OUTBOX_SCHEMA to a new schema (on SQLite: DATABASE_URL to a new file), and run "
        "`outbox db upgrade`"
    )


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
            f"the baseline listener and `outbox extract` need tables named {', '.join(CONTENT_TABLES)}, and the outbox "
            "has not created them here: run `outbox db upgrade`; or, where the application has such tables, name "
            "destinations in outbox.toml"
        )


def refuse_strangers(connection: sa.Connection, creates: str, *, branch: str, schema: str | None) -> None:
    """Refuse to apply a branch where another application has tables, indexes, functions ... of its names.

    Args:
        connection: To the database that is to be migrated.
        creates: The SQL of the branch.
        branch: ``"outbox"`` or ``"content"``.
        schema: The PostgreSQL schema of the outbox, if not the first of the ``search_path``.

    Raises:
        SchemaError: The text names them.
    """
    names = [name for created in _CREATED.finditer(creates) if (name := created[1]) != VERSION_TABLE]
    if connection.dialect.name == "postgresql":
        names += _UNIQUE_CONSTRAINT.findall(creates)
        found = connection.execute(
            sa.text(_TAKEN_ON_POSTGRES),
            {
                "names": names,
                "functions": [f"{name}({_types(given)})" for name, given in _FUNCTION.findall(creates)],
                "schema": schema or connection.scalar(sa.text("SELECT current_schema()")),
            },
        )
    else:
        found = connection.exec_driver_sql("SELECT type, name FROM sqlite_master WHERE type <> 'trigger'")
    ours = set(names)
    taken = [(kind, name) for kind, name in found if kind == "function" or name.lower() in ours]
    if taken:
        raise _strangers(taken, branch)


_CREATED = re.compile(r"^\s*CREATE (?:UNIQUE )?(?:TABLE|INDEX|SEQUENCE) (\w+)", re.MULTILINE)
_UNIQUE_CONSTRAINT = re.compile(r"\bCONSTRAINT (\w+) UNIQUE")  # its index has this name
_FUNCTION = re.compile(r"^\s*CREATE FUNCTION (\w+)\(([^)]*)\)", re.MULTILINE)

# A function of other arguments may have the same name.
_TAKEN_ON_POSTGRES = """
SELECT CASE WHEN relkind IN ('i', 'I') THEN 'index' WHEN relkind IN ('v', 'm') THEN 'view'
            WHEN relkind = 'S' THEN 'sequence' WHEN relkind = 'c' THEN 'type' ELSE 'table' END, relname
FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema) AND relname = ANY(:names)
UNION ALL
SELECT 'type', typname FROM pg_type
WHERE typnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema) AND typname = ANY(:names) AND typrelid = 0
UNION ALL
SELECT 'function', proname
FROM unnest(CAST(:functions AS text[])) AS ours
JOIN pg_proc ON pg_proc.oid = to_regprocedure(quote_ident(CAST(:schema AS text)) || '.' || ours)
ORDER BY 2
"""


def _types(arguments: str) -> str:
    """Return the types of a function's arguments, which the SQL declares as ``name type DEFAULT value``."""
    return ", ".join(each.split()[1] for each in arguments.split(",") if each.strip())


def _strangers(found: Sequence[tuple[str, str]], branch: str) -> SchemaError:
    """Return an error that names what is in the way."""
    kinds = {kind for kind, _ in found}
    what = f"objects ({', '.join(sorted(kinds))})"
    if len(kinds) == 1:
        [kind] = kinds
        article = "an" if kind == "index" else "a"
        what = f"{article} {kind}" if len(found) == 1 else "indexes" if kind == "index" else f"{kind}s"
    remedy = (
        "To keep your own and install only the outbox, run: outbox db upgrade --only outbox"
        if branch == "content"
        else "Set OUTBOX_SCHEMA to give the outbox a schema of its own (on SQLite: a file), or rename "
        + ("it" if len(found) == 1 else "them")
    )
    names = ", ".join(name for _, name in found)
    return SchemaError(
        f"this database already has {what} named {names}, which the outbox did not create, "
        f"so nothing was changed. {remedy}"
    )


def verify_version(version: int, oldest_release: str) -> None:
    """Compare a database's version with the one that this release needs."""
    if (version, oldest_release) == NO_VERSION:
        raise SchemaError(
            "outbox_meta is empty, so the schema's version is unknown; its row was deleted, perhaps with other data: "
            f"run `outbox db upgrade`, and if that does nothing, restore the row: {SAYS_VERSION}"
        )
    if version < FIRST_VERSION:
        raise _former_shape(version)
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
