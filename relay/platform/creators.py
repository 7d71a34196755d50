"""Which other roles may create objects in the schema of our tables, and what a migration does about it.

A first migration refuses a schema in which a role was granted CREATE. It only warns where PUBLIC has that right in the
schema `public`: that is the default of PostgreSQL 14 and of clusters that were upgraded from it, and other applications
may need it. It never revokes a right: the schema belongs to the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from outbox.errors import SchemaError
from relay.platform.rights import quoted

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
