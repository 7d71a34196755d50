"""Open the database; if that fails, raise an error that says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from outbox.errors import OutboxError, SchemaError, Unusable
from relay.admin.access.damaged_text import accept_any_bytes
from relay.admin.access.queries import snapshot
from relay.observe.text import redacted
from relay.platform.database import Database, is_refusal
from relay.platform.rights import RELAY, Right, refuse_without
from relay.platform.schema import check_content, check_schema
from relay.settings import Settings


@contextmanager
def opened(settings: Settings, *, needs: Sequence[Right] = RELAY) -> Iterator[sa.Engine]:
    """Yield an engine for a database that exists and has a usable schema.

    Args:
        settings: The settings of the database.
        needs: The rights to name if one turns out to be missing. If they are about content, the content tables must be
            ours.

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
        accept_any_bytes(engine)
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
        if getattr(error.orig, "sqlstate", None) == "42501":
            with database.short_engine(prepares=False) as engine, engine.connect() as connection:
                refuse_without(connection, needs)
        found = explained(error, database)
        if found is None:
            raise
        raise found from error


def explained(error: sa.exc.DBAPIError, database: Database) -> OutboxError | None:
    """Return a sentence for a driver's error; ``None`` if the program is at fault."""
    said = redacted(_first_sentence(str(error.orig)))
    state = getattr(error.orig, "sqlstate", None)
    if database.is_file:
        if "unable to open" in said or "readonly" in said:
            said += "; this user must be able to read and write the file and its folder"
        found = Unusable(f"the database {database.path.absolute()} cannot be used: {said}")
        return found if _is_sqlite_trouble(error) else None
    if state == "42501":
        return Unusable(f"{said} in {database}: `outbox db grants` prints the rights that each role needs")
    if state == "42P01":
        return SchemaError(f"{said} in {database}: run `outbox db upgrade`")
    if state == "55P03" or (state or "").startswith("40"):
        return OutboxError(f"{said} in {database}: another session was changing the same rows; run it again")
    if state in ("25P03", "25P04"):
        return OutboxError(f"{said} in {database}: raise this timeout for this role, or run it at a quieter time")
    if state == "57014":
        return OutboxError(f"{said} in {database}: raise statement_timeout for this role, or run it at a quieter time")
    if state is None or state[:2] in ("08", "28", "3D", "53", "57"):
        if is_refusal(error.orig):
            reason = said.rpartition("FATAL:")[2].strip()
            return Unusable(
                f"the server of {database} refuses us: {reason}; check what OUTBOX_DATABASE_URL or DATABASE_URL says"
            )
        return Unusable(
            f"cannot reach the database {database}: {said}; check that the server runs and accepts connections, "
            "and what OUTBOX_DATABASE_URL or DATABASE_URL says"
        )
    return None


def _is_sqlite_trouble(error: sa.exc.DBAPIError) -> bool:
    """Return whether SQLite's file is locked, unreadable, full or not a database, and the program is not at fault."""
    return isinstance(error, sa.exc.OperationalError | sa.exc.DatabaseError) and not isinstance(
        error, sa.exc.ProgrammingError | sa.exc.IntegrityError | sa.exc.DataError
    )


def _first_sentence(text: str) -> str:
    """Return the first line: libpq repeats its message for every address that it tried."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return line.removeprefix("connection failed: ").removesuffix(".")
