"""Check which rights the connected role lacks, and which other roles may create objects beside our tables.

A relay checks its own rights first. So a missing right is reported at the start, in one sentence with the command that
grants it, and not later as an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from outbox.errors import Unusable
from relay.databases.rights import PUBLIC, Creators, Right, quoted

NAMED_AT_MOST = 4


def refuse_without(connection: sa.Connection, needs: Iterable[Right], *, schema: str | None = None) -> None:
    schema = schema or connection.scalar(sa.text(_SCHEMA))
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


# The path as it was set: the effective path leaves out schemas without USAGE.
_SCHEMA = """
SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN string_to_array(replace(replace(current_setting('search_path'), '"', ''), ' ', ''), ',') AS path
WHERE c.relname = 'outbox_meta' AND n.nspname = ANY (path) ORDER BY array_position(path, n.nspname::text) LIMIT 1
"""


# These roles are trusted: the owner of the schema, the owner of our tables (before these exist, the current role),
# every role that may become that owner, and superusers. 0 is PUBLIC.
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


def others_that_create(connection: sa.Connection) -> Creators | None:
    rows: list[Any] = list(connection.execute(sa.text(_MAY_CREATE)))
    if not rows:
        return None
    return Creators(rows[0].schema, tuple(PUBLIC if row.role is None else quoted(row.role) for row in rows))
