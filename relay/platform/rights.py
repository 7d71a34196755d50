"""The rights of the three roles on PostgreSQL, and a check for those that the connected role lacks.

`outbox db grants` prints them. A relay checks its own rights first. So a missing right is reported in one sentence at
the start, with the command that grants it, and not as an error later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from outbox.errors import SchemaError, Unusable

NAMED_AT_MOST = 4


@dataclass(frozen=True, slots=True)
class Right:
    """Privileges on one object of the outbox's schema.

    Args:
        privileges: The privileges, as GRANT names them.
        kind: ``"SCHEMA"``, ``"TABLE"``, ``"SEQUENCE"`` or ``"FUNCTION"``.
        name: The name of the object; of a function with its argument types; of the schema empty.
        columns: The columns of a table that are enough. Empty: all of them.
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
    # The columns that `emit` and `outbox_emit` fill. The database fills the others.
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
    *_tables("SELECT UPDATE", "outbox_shard"),
    *_tables("SELECT INSERT UPDATE DELETE", "outbox_rate"),
    *_tables("SELECT", "outbox_meta", "outbox_alembic_version"),
    Right(("SELECT", "UPDATE"), "SEQUENCE", "outbox_wake"),
    Right(("SELECT",), "SEQUENCE", "outbox_message_position_seq"),
    Right(("EXECUTE",), "FUNCTION", "outbox_add_partition(date)"),
    Right(("EXECUTE",), "FUNCTION", "outbox_drop_partition(date)"),
)
BASELINE = (*_tables("SELECT", "contents", "extractions"), *_tables("SELECT INSERT", "topic_graphs"))


def refuse_without(connection: sa.Connection, needs: Iterable[Right], *, schema: str | None = None) -> None:
    """Check that the connection's role has these rights.

    Raises:
        Unusable: It lacks some; the text names them and the statements that grant them.
    """
    if connection.dialect.name != "postgresql":
        return
    schema = schema or _schema(connection)
    if schema is None:
        return
    lacking = _lacking(connection, schema, needs)
    if lacking:
        role = str(connection.scalar(sa.text("SELECT current_user")))
        named = lacking[:NAMED_AT_MOST]
        more = f" and {len(lacking) - len(named)} other rights" if len(lacking) > len(named) else ""
        what = "; ".join(f"{right.what} on {right.on(schema)}" for right in named) + more
        grants = "; ".join(right.grant(schema, role) for right in named) if not more else "its output"
        raise Unusable(
            f"the role {role} lacks {what} (`outbox db grants` prints everything that each role needs). "
            f"Run as the owner: {grants}"
        )


_LACKING = """
SELECT r.number FROM pg_namespace AS n
CROSS JOIN jsonb_to_recordset(CAST(:wanted AS jsonb))
    AS r (number int, kind text, name text, privilege text, columns jsonb)
LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = r.name
LEFT JOIN pg_proc AS p ON p.pronamespace = n.oid AND p.proname = split_part(r.name, '(', 1)
WHERE n.nspname = :schema AND NOT CASE r.kind
    WHEN 'SCHEMA' THEN has_schema_privilege(n.oid, r.privilege)
    WHEN 'TABLE' THEN c.oid IS NULL OR CASE WHEN r.columns = '[]' THEN has_table_privilege(c.oid, r.privilege)
        ELSE NOT EXISTS (SELECT FROM jsonb_array_elements_text(r.columns) AS k (name)
                         WHERE NOT has_column_privilege(c.oid, k.name, r.privilege)) END
    WHEN 'SEQUENCE' THEN c.oid IS NULL OR has_sequence_privilege(c.oid, r.privilege)
    ELSE p.oid IS NULL OR has_function_privilege(p.oid, r.privilege) END
ORDER BY r.number
"""


def _lacking(connection: sa.Connection, schema: str, needs: Iterable[Right]) -> list[Right]:
    single = [replace(right, privileges=(privilege,)) for right in needs for privilege in right.privileges]
    wanted = [
        {"number": n, "kind": r.kind, "name": r.name, "privilege": r.privileges[0], "columns": r.columns}
        for n, r in enumerate(single)
    ]
    rows = connection.execute(sa.text(_LACKING), {"wanted": json.dumps(wanted), "schema": schema})
    return [single[row.number] for row in rows]


# As it was set: the effective path leaves out schemas without USAGE.
_SCHEMA = """
SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN string_to_array(replace(replace(current_setting('search_path'), '"', ''), ' ', ''), ',') AS path
WHERE c.relname = 'outbox_meta' AND n.nspname = ANY (path) ORDER BY array_position(path, n.nspname::text) LIMIT 1
"""


def _schema(connection: sa.Connection) -> str | None:
    found: str | None = connection.scalar(sa.text(_SCHEMA))
    return found


def quoted(name: str) -> str:
    from sqlalchemy.dialects.postgresql.base import PGDialect

    # Not psycopg's, which writes every % twice.
    dialect: sa.Dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]
    return str(dialect.identifier_preparer.quote(name))


# ------------------------------------------------------------------------------------------- who else may create
#
# A first migration refuses a schema in which a role was granted CREATE. It only warns where PUBLIC has that right in
# the schema `public`: that is the default of PostgreSQL 14 and of clusters that were upgraded from it, and other
# applications may need it. It never revokes a right: the schema belongs to the host.

MAY_RUN = "a function or operator that is created there may run with a relay's rights, and read every message"
PUBLIC = "PUBLIC"

# Trusted are the owner of the schema, the owner of our tables (before these exist: the current role), every role that
# may become that owner, and superusers. 0 is PUBLIC.
_MAY_CREATE = """
SELECT n.nspname AS schema, CASE g.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(g.grantee) END AS role
FROM pg_namespace AS n
LEFT JOIN pg_class AS t ON t.oid = to_regclass('outbox_message')
CROSS JOIN LATERAL (
    SELECT coalesce(t.relowner, (SELECT oid FROM pg_roles WHERE rolname = current_user)) AS oid
) AS owner
CROSS JOIN aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS g
LEFT JOIN pg_roles AS r ON r.oid = g.grantee
WHERE n.oid = coalesce(t.relnamespace, to_regnamespace(quote_ident(current_schema()))) AND g.privilege_type = 'CREATE'
  AND g.grantee NOT IN (n.nspowner, owner.oid) AND NOT coalesce(r.rolsuper, false)
  AND (r.oid IS NULL OR NOT pg_has_role(r.oid, owner.oid, 'MEMBER'))
ORDER BY role NULLS FIRST
"""


@dataclass(frozen=True)
class Creators:
    """Roles that may create objects in our schema.

    Args:
        schema: The schema.
        roles: The roles, quoted as in SQL; ``PUBLIC`` comes first.
    """

    schema: str
    roles: tuple[str, ...]

    @property
    def revoke(self) -> str:
        """Return the statement that takes the right away."""
        return f"REVOKE CREATE ON SCHEMA {quoted(self.schema)} FROM {', '.join(self.roles)}"

    @property
    def is_default(self) -> bool:
        """Whether this is what PostgreSQL 14 grants without being asked."""
        return self.schema == "public" and self.roles == (PUBLIC,)


def others_that_create(connection: sa.Connection) -> Creators | None:
    """Return the roles that may create objects in the schema of our tables; ``None`` if there are none."""
    rows: list[Any] = list(connection.execute(sa.text(_MAY_CREATE)))
    if not rows:
        return None
    return Creators(rows[0].schema, tuple(PUBLIC if row.role is None else quoted(row.role) for row in rows))


def refuse_creators(connection: sa.Connection) -> None:
    """Refuse a schema in which a role was granted CREATE, before our tables are created there.

    Raises:
        SchemaError: Names the roles, and the statement that takes the right away.
    """
    if connection.dialect.name != "postgresql":
        return
    found = others_that_create(connection)
    if found is not None and not found.is_default:
        raise SchemaError(
            f"{', '.join(found.roles)} may CREATE in the schema {found.schema}, so nothing was changed: {MAY_RUN}. "
            f"Run {found.revoke}; or set OUTBOX_SCHEMA to give the outbox a schema of its own"
        )
