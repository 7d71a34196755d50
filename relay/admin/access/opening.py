"""Open the database; if that fails, raise an error that says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from outbox.errors import OutboxError
from relay.admin.access.queries import snapshot
from relay.databases.database import Database
from relay.databases.rights import RELAY, Right
from relay.databases.schema import check_content, check_schema
from relay.observe.text import redacted
from relay.settings import Settings


@contextmanager
def opened(settings: Settings, *, needs: Sequence[Right] = RELAY) -> Iterator[sa.Engine]:
    """Yield an engine for a database that exists and has a usable schema.

    Args:
        settings: The settings of the database.
        needs: The rights to name if one of them is missing. If they are about content, the content tables must be ours.

    Raises:
        Unusable: The database does not exist or has no usable schema; the text names the command to run.
    """
    with _reached(settings, needs) as engine:
        with engine.connect() as connection:
            check_schema(connection, settings.database.place)
            check_content(connection, needs)
        yield engine


@contextmanager
def opened_snapshot(settings: Settings) -> Iterator[sa.Connection]:
    """Yield a connection to read from, in one snapshot. Raises as `opened` does."""
    with _reached(settings) as engine, snapshot(engine) as connection:
        check_schema(connection, settings.database.place)
        yield connection


@contextmanager
def _reached(settings: Settings, needs: Sequence[Right] = RELAY) -> Iterator[sa.Engine]:
    settings.require_database_file()
    with settings.database.short_engine(prepares=False) as engine, reaching(settings.database, needs=needs):
        settings.database.dialect.accept_any_bytes(engine)
        yield engine


@contextmanager
def reaching(database: Database, *, needs: Sequence[Right] = RELAY) -> Iterator[None]:
    """Translate a driver's error into a sentence.

    Raises:
        Unusable: The database cannot be reached, or refuses the connection.
        OutboxError: Another session was changing the same rows.
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        if database.dialect.obstacle(error) == "denied":
            with database.short_engine(prepares=False) as engine, engine.connect() as connection:
                database.dialect.refuse_without(connection, needs)
        found = explained(error, database)
        if found is None:
            raise
        raise found from error


def explained(error: sa.exc.DBAPIError, database: Database) -> OutboxError | None:
    """Return a sentence for a driver's error; ``None`` if the program is at fault."""
    said = redacted(_first_sentence(str(error.orig)))
    place = str(database.path.absolute()) if database.is_file else str(database)
    return database.dialect.explained(error, said, place)


def _first_sentence(text: str) -> str:
    """Return the first line: libpq repeats its message for every address that it tried."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return line.removeprefix("connection failed: ").removesuffix(".")
