"""Create and remove the outbox's tables on the caller's connection, for tests.

Use ``outbox db upgrade`` for every other database. The same migrations run here, at once and in the caller's
transaction, so a test has every trigger and function that production has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from outbox.errors import OutboxError
from outbox.writing.dialects.dialect import dialect_of

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

VERSION_TABLE = "outbox_alembic_version"
_BRANCH = "outbox@head"


class OutboxMetaData(sa.MetaData):
    """A ``MetaData`` of the outbox's tables. Only the migrations can create these tables."""

    def create_all(self, bind: Any, tables: Any = None, checkfirst: Any = True) -> None:
        """Create the tables, unless they exist; ``tables`` has no effect: an outbox is created as a whole."""
        _on_connection(bind, lambda connection: _create(connection, self.schema))

    def drop_all(self, bind: Any, tables: Any = None, checkfirst: Any = True) -> None:
        """Remove the tables, if they exist, with everything in them."""
        _on_connection(bind, lambda connection: _drop(connection, self.schema))


def _on_connection(bind: Any, work: Callable[[sa.Connection], None]) -> None:
    if isinstance(bind, sa.Engine):
        with bind.begin() as connection:
            work(connection)
    else:
        work(bind)


def _create(connection: sa.Connection, schema: str | None) -> None:
    if _is_there(connection, schema):
        return
    with dialect_of(connection).first_on_path(connection, schema), _migrating(connection) as (scripts, context):
        for revision in reversed(list(scripts.walk_revisions("base", _BRANCH))):
            revision.module.upgrade()
        context.stamp(scripts, _BRANCH)


def _drop(connection: sa.Connection, schema: str | None) -> None:
    if not _is_there(connection, schema):
        return
    with dialect_of(connection).first_on_path(connection, schema), _migrating(connection) as (scripts, _):
        for revision in scripts.walk_revisions("base", _BRANCH):
            revision.module.downgrade()
        connection.exec_driver_sql(f"DROP TABLE {VERSION_TABLE}")


def _is_there(connection: sa.Connection, schema: str | None) -> bool:
    inspector = sa.inspect(connection)
    return inspector.has_table("outbox_message", schema=schema or inspector.default_schema_name)


@contextmanager
def _migrating(connection: sa.Connection) -> Iterator[tuple[ScriptDirectory, Any]]:
    try:
        from alembic.operations import Operations
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory
    except ImportError as error:
        raise OutboxError("create_all runs the migrations, which need Alembic: pip install alembic") from error
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    with Operations.context(context):
        yield ScriptDirectory(str(scripts())), context


def scripts() -> Path:
    """Return where the migrations are: inside the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "migrations"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "alembic"


def statements(database: str, revision: str, direction: Literal["up", "down"]) -> Iterator[str]:
    """Yield the SQL of a migration, from the folder of the revision in the database's folder.

    Args:
        database: SQLAlchemy's name of the database.
        revision: The migration's name.
        direction: What the names of the files begin with. They run in the order of their names, and an empty line
            separates two statements. There may be none for ``"down"``, which removes what is not a table.
    """
    folder = Path(__file__).parent / "writing" / "dialects" / database / revision
    for path in sorted(folder.glob(f"{direction}*.sql")):
        yield from path.read_text(encoding="utf-8").rstrip().removesuffix(";").split(";\n\n")
