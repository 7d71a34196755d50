"""Fresh databases for tests, and their fixtures: PostgreSQL's from a migrated template, SQLite's from a migrated file.

pytest loads this module, even where no test needs a database. So functions import the libraries that they need.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql
    from sqlalchemy import URL, Engine, Row
    from sqlalchemy.ext.asyncio import AsyncEngine

# Each kind has the fixtures `<kind>_database` and `empty_<kind>`, and the drivers of plain and of asynchronous engines.
KINDS = {"sqlite": ("pysqlite", "aiosqlite"), "postgres": ("psycopg", "psycopg")}

# Read here, because `pytest_configure` then removes it.
EXTERNAL_SERVER_URL = os.environ.get("OUTBOX_TEST_DATABASE_URL")


class Database:
    """One test's database; `url` is what a user would put into DATABASE_URL."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url
        self._engines: list[Engine] = []

    def __repr__(self) -> str:
        return f"<Database {self.url}>"

    @cached_property
    def engine(self) -> Engine:
        """A plain engine (psycopg or sqlite3), disposed of when the test is over."""
        # No table of the tests has an hstore: to look for that type would cost each test three round trips.
        return self.sync_engine(**({"use_native_hstore": False} if self.kind == "postgres" else {}))

    def sync_engine(self, driver: str | None = None, **options: Any) -> Engine:
        """Return a further engine, with another driver ("psycopg2") or options; the database disposes of it."""
        from sqlalchemy import create_engine

        engine = create_engine(self.sqlalchemy_url(driver or KINDS[self.kind][0]), **options)
        self._engines.append(engine)
        return engine

    def async_engine(self, driver: str | None = None, **options: Any) -> AsyncEngine:
        """Return an async engine on psycopg, "asyncpg" or aiosqlite.

        It pools nothing, so there is nothing to dispose of. A caller that passes a `poolclass` disposes of it in
        the test's own event loop.
        """
        from sqlalchemy import NullPool
        from sqlalchemy.ext.asyncio import create_async_engine

        options.setdefault("poolclass", NullPool)
        return create_async_engine(self.sqlalchemy_url(driver or KINDS[self.kind][1]), **options)

    def sqlalchemy_url(self, driver: str) -> URL:
        from sqlalchemy import make_url

        url = make_url(self.url)
        return url.set(drivername=f"{url.get_backend_name()}+{driver}")

    def downgrade(self, *branches: str) -> None:
        """Undo the migrations of these branches, as `alembic downgrade` does."""
        from alembic import command

        from relay.databases import migrations
        from relay.databases.database import Database as Target

        def down(config: Any) -> None:
            for branch in branches:
                command.downgrade(config, f"{branch}@base")

        migrations._run(Target.parse(self.url), down)

    def execute(self, statement: str, **parameters: Any) -> int:
        """Run and commit one statement given as text; return the number of rows that it changed."""
        from sqlalchemy import text

        with self.engine.begin() as connection:
            return connection.execute(text(statement), parameters).rowcount

    def rows(self, statement: str, **parameters: Any) -> list[Row[Any]]:
        """Return the rows of one statement."""
        from sqlalchemy import text

        with self.engine.begin() as connection:
            return list(connection.execute(text(statement), parameters))

    def scalar(self, statement: str, **parameters: Any) -> Any:
        """Return the first column of the first row."""
        from sqlalchemy import text

        with self.engine.begin() as connection:
            return connection.scalar(text(statement), parameters)

    def dispose(self) -> None:
        for engine in self._engines:
            engine.dispose()


class PostgresDatabases:
    """Creates and drops the databases of a test run on one server."""

    def __init__(self, admin_url: str) -> None:
        from sqlalchemy import make_url

        self._admin = make_url(admin_url).set(drivername="postgresql")
        self._prefix = f"outbox_test_{secrets.token_hex(4)}"
        self._count = 0
        self._retired: list[str] = []
        self._templates: dict[str, str] = {}
        self._migrated: dict[date, str] = {}

    @property
    def migrated_template(self) -> str:
        """A database with both branches at their heads, migrated on first use, and again after midnight."""
        today = datetime.now(UTC).date()
        if today not in self._migrated:
            name = self.create()
            _upgrade(self.url(name))
            self._migrated[today] = name
        return self._migrated[today]

    def template(self, label: str, fill: Callable[[Database], None]) -> str:
        """Return the name of a migrated database that `fill` has filled; it is filled once for each label."""
        if label not in self._templates:
            name = self._templates[label] = self.create(self.migrated_template)
            database = Database("postgres", self.url(name))
            fill(database)
            database.dispose()  # a database can be copied only while it has no connection
        return self._templates[label]

    @contextmanager
    def fresh(self, template: str | None) -> Iterator[Database]:
        """Lend a new database, a copy of `template`; it is dropped afterwards."""
        name = self.create(template)
        database = Database("postgres", self.url(name))
        try:
            yield database
        finally:
            database.dispose()
            self.retire(name)

    def url(self, name: str) -> str:
        return self._admin.set(database=name).render_as_string(hide_password=False)

    def create(self, template: str | None = None, *, encoding: str | None = None) -> str:
        """Create a database, in an encoding other than the server's if it is named, and return its name."""
        from psycopg import sql

        self._drop_retired()
        self._count += 1
        name = f"{self._prefix}_{self._count}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) + self._strategy
        if encoding is not None:
            statement += sql.SQL(" TEMPLATE template0 LOCALE 'C' ENCODING {}").format(encoding)
        self._execute(statement)
        return name

    def retire(self, name: str) -> None:
        """Have a database dropped before the next one is created.

        It is not dropped now, because the server waits in steps of 100 ms after a connection was closed.
        """
        self._retired.append(name)

    def close(self) -> None:
        """Drop the databases that are left, the templates included."""
        for template in (*self._migrated.values(), *self._templates.values()):
            self.retire(template)
        self._drop_retired()
        if connection := self.__dict__.pop("_connection", None):
            connection.close()

    @cached_property
    def _connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        import psycopg

        return psycopg.connect(self._admin.render_as_string(hide_password=False), autocommit=True)

    @cached_property
    def _strategy(self) -> sql.SQL:
        """Copy files where a checkpoint costs nothing: that is twice as fast as writing their content to the log."""
        from psycopg import sql

        is_cheap = self._connection.execute("SHOW fsync").fetchone() == ("off",)
        has_choice = self._connection.info.server_version >= 150_000
        return sql.SQL(" STRATEGY file_copy" if is_cheap and has_choice else "")

    def _drop_retired(self) -> None:
        from psycopg import sql

        while self._retired:
            name = sql.Identifier(self._retired.pop())
            self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def _execute(self, statement: sql.Composed) -> None:
        self._connection.execute(statement)


class SqliteDatabases:
    """Creates the SQLite files of a test run, as copies of one that was migrated on first use."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def migrated_file(self) -> Path:
        path = self._directory / "migrated.db"
        _upgrade(sqlite_url(path))
        if path.with_name("migrated.db-wal").exists():
            raise RuntimeError(f"{path} has a write-ahead log: a migration left a connection open")
        return path

    def copy_to(self, path: Path) -> str:
        """Put a migrated database at `path` and return its URL."""
        shutil.copy(self.migrated_file, path)
        return sqlite_url(path)


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def _upgrade(url: str) -> None:
    # Imported here so that what needs no database can be tested while migrations are broken.
    from relay.databases.migrations import upgrade

    upgrade(url)


# ---------------------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="session")
def postgres_databases(request: pytest.FixtureRequest) -> Iterator[PostgresDatabases]:
    """Creates databases on the session's server, or on that of OUTBOX_TEST_DATABASE_URL."""
    databases = PostgresDatabases(EXTERNAL_SERVER_URL or request.getfixturevalue("postgres_server").url())
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> SqliteDatabases:
    """Creates SQLite files that are migrated already."""
    return SqliteDatabases(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture
def postgres_database(postgres_databases: PostgresDatabases) -> Iterator[Database]:
    """A fresh PostgreSQL database with both branches at their heads."""
    with postgres_databases.fresh(postgres_databases.migrated_template) as database:
        yield database


@pytest.fixture
def empty_postgres(postgres_databases: PostgresDatabases) -> Iterator[Database]:
    """A fresh PostgreSQL database with nothing in it."""
    with postgres_databases.fresh(None) as database:
        yield database


@pytest.fixture
def sqlite_database(sqlite_databases: SqliteDatabases, tmp_path: Path) -> Iterator[Database]:
    """A fresh SQLite database with both branches at their heads."""
    yield from _disposed(Database("sqlite", sqlite_databases.copy_to(tmp_path / "test.db")))


@pytest.fixture
def empty_sqlite(tmp_path: Path) -> Iterator[Database]:
    """Return the URL of an SQLite file that does not exist yet."""
    yield from _disposed(Database("sqlite", sqlite_url(tmp_path / "test.db")))


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest) -> Database:
    """A fresh, migrated database: the test runs once on each kind."""
    return request.getfixturevalue(f"{request.param}_database")


@pytest.fixture(params=KINDS)
def empty_database(request: pytest.FixtureRequest) -> Database:
    """A database that was never migrated: the test runs once on each kind."""
    return request.getfixturevalue(f"empty_{request.param}")


def _disposed(database: Database) -> Iterator[Database]:
    try:
        yield database
    finally:
        database.dispose()
