"""The rights that the three roles need, if the database has roles. `outbox db grants` prints them."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class Right:
    """Privileges on one object of the outbox's schema.

    Args:
        privileges: The privileges, as GRANT names them.
        kind: ``"SCHEMA"``, ``"TABLE"``, ``"SEQUENCE"`` or ``"FUNCTION"``.
        name: The name of the object; for a function, with its argument types; for the schema, empty.
        columns: The columns of a table to which the privileges are limited. Empty: all columns.
    """

    privileges: tuple[str, ...]
    kind: str
    name: str = ""
    columns: tuple[str, ...] = ()

    def on(self, schema: str) -> str:
        """Return the object, as GRANT names it."""
        if self.kind == "SCHEMA":
            return f"SCHEMA {quoted(schema)}"
        return ("" if self.kind == "TABLE" else f"{self.kind} ") + f"{quoted(schema)}.{self.name}"

    @property
    def what(self) -> str:
        """The privileges, as GRANT names them."""
        columns = f" ({', '.join(self.columns)})" if self.columns else ""
        return ", ".join(privilege + columns for privilege in self.privileges)

    def grant(self, schema: str, role: str) -> str:
        return f"GRANT {self.what} ON {self.on(schema)} TO {quoted(role)}"


def _tables(privileges: str, *names: str) -> tuple[Right, ...]:
    return tuple(Right(tuple(privileges.split()), "TABLE", name) for name in names)


USAGE = Right(("USAGE",), "SCHEMA")

MIGRATOR = (Right(("USAGE", "CREATE"), "SCHEMA"),)

WORKER = (
    USAGE,
    # The columns that `emit` and `outbox_emit` fill. The database fills all other columns.
    Right(
        ("INSERT",),
        "TABLE",
        "outbox_message",
        ("id", "type", "source", "subject", "ordering_key", "data", "headers", "due_at", "state", "expires_at"),
    ),
    Right(("EXECUTE",), "FUNCTION", "outbox_emit(text, json, text, text, json, timestamptz, uuid, timestamptz)"),
    Right(("EXECUTE",), "FUNCTION", "outbox_uuid7()"),
    Right(("SELECT",), "SEQUENCE", "outbox_wake"),
    Right(("EXECUTE",), "FUNCTION", "outbox_new_id(uuid)"),
    Right(("EXECUTE",), "FUNCTION", "outbox_take_turns(text[])"),  # for strict_order
)
CONSUMER = (Right(("INSERT",), "TABLE", "inbox_message", ("listener", "message_id")),)
COMMANDS = _tables("SELECT", "outbox_meta")
EXTRACT = (
    *_tables("SELECT INSERT UPDATE", "contents"),
    *_tables("SELECT INSERT", "extractions"),
    *_tables("SELECT", "outbox_alembic_version"),
)

RELAY = (
    USAGE,
    *_tables("SELECT INSERT UPDATE DELETE", "outbox_message", "outbox_delivery", "outbox_relay"),
    *_tables("SELECT INSERT UPDATE", "outbox_destination"),
    *_tables("SELECT", "outbox_audit"),
    # Rows are added, never changed; the database itself records the time and the role.
    Right(("INSERT",), "TABLE", "outbox_audit", ("part_of", "actor", "action", "target", "count", "reason")),
    *_tables("SELECT INSERT DELETE", "inbox_message", "outbox_sample"),
    *_tables("SELECT INSERT", "outbox_history"),
    *_tables("SELECT INSERT UPDATE", "outbox_shard"),
    *_tables("SELECT INSERT UPDATE DELETE", "outbox_rate"),
    *_tables("SELECT", "outbox_meta", "outbox_alembic_version"),
    Right(("SELECT", "UPDATE"), "SEQUENCE", "outbox_wake"),
    Right(("SELECT",), "SEQUENCE", "outbox_message_position_seq"),
    Right(("EXECUTE",), "FUNCTION", "outbox_add_partition(date)"),
    Right(("EXECUTE",), "FUNCTION", "outbox_drop_partition(date)"),
)
BASELINE = (*_tables("SELECT", "contents", "extractions"), *_tables("SELECT INSERT", "topic_graphs"))


def quoted(name: str) -> str:
    from sqlalchemy.dialects.postgresql.base import PGDialect

    # psycopg's own function is not used, because it writes every % twice.
    dialect: sa.Dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]
    return str(dialect.identifier_preparer.quote(name))


# ------------------------------------------------------------------------------------------- which other roles may
# create A first migration refuses a schema in which a role was granted CREATE. It only warns if PUBLIC has that right
# in the schema `public`, because that is the default of PostgreSQL 14 and of clusters that were upgraded from it, and
# other applications may need it. It never revokes a right, because the schema belongs to the host.

MAY_RUN = "a function or operator that is created there may run with a relay's rights, and read every message"
PUBLIC = "PUBLIC"


@dataclass(frozen=True)
class Creators:
    """Roles that may create objects in our schema.

    Args:
        schema: The schema.
        roles: The roles, quoted as in SQL; ``PUBLIC`` comes first.
    """

    schema: str
    roles: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.roles)} may CREATE in the schema {self.schema}"

    @property
    def remedy(self) -> str:
        """The statement that revokes the right, and the alternative."""
        revoke = f"REVOKE CREATE ON SCHEMA {quoted(self.schema)} FROM {', '.join(self.roles)}"
        return f"{revoke}; or set OUTBOX_SCHEMA to give the outbox a schema of its own"

    @property
    def is_default(self) -> bool:
        """Whether this is only what PostgreSQL 14 grants by default."""
        return self.schema == "public" and self.roles == (PUBLIC,)
