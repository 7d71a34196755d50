"""The interface that the relay, its operators and its listeners need of a database, and the choice of its folder.

Each database has a folder here with SQLAlchemy's name of it. The folder holds everything that is particular to that
database: connections, migrations, rights, errors, the relay's SQL, and the doctor's checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import sqlalchemy as sa
from sqlalchemy.engine import URL

from outbox.errors import OutboxError, SettingsError
from relay.databases import names
from relay.databases.address import Address
from relay.databases.rights import Creators, Right

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from relay.databases.store.backlog import BacklogReader, Walk
    from relay.databases.store.contract import Store
    from relay.platform.finding import Finding

# taken: by an object that is not ours; locked: by another session; denied: for lack of a right.
Obstacle = Literal["taken", "locked", "denied"]

ALIASES = {"postgres": "postgresql"}  # other names of databases in URLs


class Dialect(Protocol):
    """Everything that is particular to a database: the module `dialect` in its folder.

    An error of the driver reaches the caller as SQLAlchemy raises it, unless the member says otherwise.
    """

    # ------------------------------------------------------------------------------------------- connections

    IS_FILE: bool  # it is a file with one writer at a time, and not a server
    HAS_SCHEMAS: bool  # if not, `schema` is always None

    def checked(self, url: URL) -> URL:
        """Return a URL with our driver; raise `SettingsError` for a URL that cannot be used."""

    def engine(
        self, url: URL, schema: str | None, options: dict[str, Any], *, prepares: bool, keeps_session: bool
    ) -> sa.Engine:
        """Return an engine as `Database.engine` does.

        Args:
            url: The URL that `checked` returned.
            schema: The schema of our tables; ``None``: the connection's first.
            options: Options of SQLAlchemy's ``create_engine``, which override the dialect's own.
            prepares, keeps_session: See `Database.engine`.
        """

    def listener_engine(self, url: URL, schema: str | None, options: dict[str, Any]) -> sa.Engine:
        """Return an engine as `Database.listener_engine` does; the parameters are those of `engine`."""

    def async_listener_engine(self, url: URL, schema: str | None, options: dict[str, Any]) -> AsyncEngine:
        """Return an engine as `Database.async_listener_engine` does; the parameters are those of `engine`."""

    def explained(self, error: sa.exc.DBAPIError, said: str, place: str) -> OutboxError | None:
        """Return an error that says what a person can do; ``None`` if the program is at fault.

        The error is `Unusable` if the database cannot be reached or used, `SchemaError` if our tables are missing, and
        `OutboxError` if the command may succeed when it is run again.

        Args:
            error: The driver's error, wrapped in SQLAlchemy's.
            said: The first line of the driver's message, without secrets.
            place: The database, in words.
        """

    def is_refusal(self, error: BaseException | None) -> bool:
        """Return whether waiting is useless: the server answers, and has no such database, role or password.

        `error` is the driver's own.
        """

    def accept_any_bytes(self, engine: sa.Engine) -> None:
        """Make every connection of this engine accept any text; U+FFFD replaces each invalid byte."""

    def limit(self, connection: sa.Connection, left_s: float | None) -> None:
        """Limit the time of the following statements.

        Args:
            connection: In a transaction.
            left_s: The limit in seconds; ``None``: no limit any more.

        `relay.databases.error_codes` calls the error of a statement that was ended INTERRUPTED.
        """

    # ----------------------------------------------------------------------------------- migrations and rights

    def migrating(
        self, engine: sa.Engine, schema: str | None, *, write: bool, lock_timeout_s: float
    ) -> AbstractContextManager[sa.Connection]:
        """Yield a connection in a transaction, which is committed at the end, and rolled back after an error.

        If the database commits each DDL statement by itself, a migration that fails stays half done.

        Args:
            engine: An engine that only this migration uses, because listeners for its events may be added.
            schema: The schema to create everything in, which is created if it does not exist.
            write: Whether the migration writes; if so, it excludes other migrations.
            lock_timeout_s: How long each of its statements waits for other sessions' locks on our tables, in seconds.
        """

    def obstacle(self, error: sa.exc.DBAPIError) -> Obstacle | None:
        """Return the obstacle that a statement of a migration or of an operator met; ``None`` for any other error."""

    def on_path(self, context: Any, schema: str | None) -> AbstractContextManager[object]:
        """Have Alembic's context create everything in this schema; an offline context prints the SQL for that."""

    def refuse_without(self, connection: sa.Connection, needs: Iterable[Right], *, schema: str | None = None) -> None:
        """Check that the connection's role has these rights; do nothing if there are no roles.

        Args:
            connection: To the outbox's database.
            needs: The rights (`relay.databases.rights`).
            schema: The schema of our tables; ``None``: the connection's first.

        Raises:
            Unusable: The role lacks rights; the text names them and the statements that grant them.
        """

    def others_that_create(self, connection: sa.Connection) -> Creators | None:
        """Return the roles that may create objects in the schema of our tables; ``None`` if there are none."""

    # -------------------------------------------------------------------------------- listeners' transactions

    # An inbox mark is a row of `inbox_message`, which a listener's transaction writes before it calls the listener.
    MARKS: Sequence[sa.ColumnElement[Any]]  # what its INSERT returns; the first value differs between two marks
    MARKED: sa.ColumnElement[str]  # that first value, as an expression on the row

    def limit_call(self, connection: sa.Connection, timeout_s: float) -> None:
        """Limit each statement of this transaction, and each pause between two, to this time in seconds.

        The limit frees the locks of a listener that hangs.
        """

    def watch_transactions(self, engine: sa.Engine) -> None:
        """Make `sign` work on the connections of an engine, which may be the ``sync_engine`` of an asynchronous one."""

    def sign(self, connection: sa.Connection) -> Any:
        """Return a sign of the transaction in which an inbox mark was just written: no other transaction has it.

        With this sign, `has_sign` detects that a listener has ended its caller's transaction, for example by its own
        SQL.
        """

    def has_sign(self, connection: sa.Connection, sign: Any) -> bool:
        """Return whether the connection is still in the transaction of this sign; otherwise the call is undone."""

    # --------------------------------------------------------------------- operators' queries and housekeeping

    CLOCK: sa.ColumnElement[datetime]  # the only clock that all relays and operators share
    EMITTED: str  # the query for the highest position used so far; it returns no row if there is none
    HOLDS_NOTHING: sa.ColumnElement[bool]  # a condition on a row of `outbox_relay`: its session holds no lock

    def begin_snapshot(self, connection: sa.Connection) -> None:
        """Begin a read-only transaction that sees one moment of the database."""

    def begin_writing(self, connection: sa.Connection) -> None:
        """Begin a transaction that reads, and then writes."""

    def by_index(self, connection: sa.Connection) -> None:
        """Make the rest of this transaction read rows in the order of an index, and stop when it has enough.

        Otherwise a planner might sort all rows for one page. Do nothing if the planner never does that.
        """

    def bound(self, connection: sa.Connection, timeout_s: float) -> None:
        """Have the server end a statement of this transaction that takes longer, or waits for a lock for a second.

        The time is in seconds. The error is one that `explained` explains.
        """

    def exact(self, instant: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return an instant in full precision, for a later comparison with `as_stored` or with another such instant."""

    def unindexed(self, instant: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return an instant in a form that keeps a query from using the instant's index; it reads in another order."""

    def as_stored(self, at: datetime) -> datetime | str:
        """Return an instant as a value to compare with `exact`."""

    def as_id(self, text: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
        """Return text, such as an inbox mark's ``message_id``, in the form of stored ids; null if it is not an id."""

    def next_txid(self, connection: sa.Connection) -> Any:
        """Return the value for ``txid`` of a row that an operator changes, in a transaction that writes.

        An owner reads each row once. It finds changes behind its cursor by ``txid``, so the value must be above all
        values that it has seen. It is a number, or an SQL expression.
        """

    def nudge(self, connection: sa.Connection) -> None:
        """Have the relays look as soon as this transaction is committed, and not only at their next poll."""

    def is_standby(self, connection: sa.Connection) -> bool:
        """Return whether the database takes no writes."""

    def take_turn(self, connection: sa.Connection) -> bool:
        """Exclude other relays' housekeeping until the transaction ends; return ``False`` if it is going on now."""

    def add_partition(self, connection: sa.Connection, day: date) -> None:
        """Create the history's partition of a day, if there is none; do nothing if the history has no partitions."""

    def delete_history(self, connection: sa.Connection, before: datetime, limit: int) -> int:
        """Delete the history from before this instant: rows, up to a limit, or whole partitions, one day late.

        The connection commits each statement. Returns the number of deleted rows, without those of partitions.
        """

    def lock_registry(self, connection: sa.Connection) -> None:
        """Wait for other registrations of destinations, and exclude them until the transaction ends.

        After that, this transaction reads what they committed. Do nothing on a standby.
        """

    def share_registry(self, connection: sa.Connection) -> None:
        """Have registrations of destinations wait until the transaction ends; other sharers do not wait."""

    def estimate_beyond(self, connection: sa.Connection, table: str, count: int) -> int | None:
        """Return an estimate of a table's rows, without counting them; ``None`` if there are at most `count`."""

    def owned(self, connection: sa.Connection, rows: Sequence[Any], beating: Mapping[int, Any]) -> Mapping[int, Any]:
        """Return the numbers of the relays that have a session, each with its shards.

        Args:
            connection: A connection.
            rows: The relays in the order of their start, each with ``number`` and ``shards`` (of its last beat).
            beating: The relays that have beaten lately, with their shards: the answer if locks cannot be seen.
        """

    def backlog(self, connection: sa.Connection, walk: Walk) -> BacklogReader:
        """Return a reader of the backlog, in a transaction whose timeout and planner settings it may change.

        Args:
            connection: A connection in that transaction.
            walk: Finds the first ready messages of each shard at a bounded cost, by a query that the reader passes. It
                is not needed if one index has the ready messages of all shards in the order of their positions.
        """

    # The statements of a replay (`relay.databases.store.replay_sql`).
    BRING_BACK: str
    WRITE_ANEW: str

    def picked(self, rows: Sequence[tuple[str, Any, str]]) -> dict[str, Any]:
        """Return the parameters of these two statements for messages.

        Args:
            rows: (id, ``delivered_at`` as `exact` returned it, id of the new message) of each.
        """

    # ------------------------------------------------------------------- the relay's sessions, and the doctor

    def store(
        self, address: Address, *, lease_s: float, keep_history: bool, notify: bool, skipping: Sequence[str]
    ) -> Store:
        """Return a store as `Database.store` does."""

    def examine_server(self, engine: sa.Engine, lease_s: float) -> Iterator[Finding]:
        """Yield findings about the server or the file, and the connection to it; `lease_s` is that of `store`."""

    def examine_tables(self, engine: sa.Engine) -> Iterator[Finding]:
        """Yield findings about our tables, which exist."""


def dialect_of(bind: sa.Connection | sa.Engine) -> Dialect:
    """Return the dialect of a connection's database."""
    return dialect_named(bind.dialect.name)


@cache
def dialect_named(name: str) -> Dialect:
    """Return the dialect of a database; no other database's modules are imported.

    Args:
        name: SQLAlchemy's name of the database, or another name that URLs may begin with.

    Raises:
        SettingsError: There is no outbox for such a database.
    """
    folder = ALIASES.get(name, name)
    if folder not in names():
        these = " and ".join(f"{each}:" for each in names())
        raise SettingsError(f"the database URL begins with {name}:, but only {these} are known")
    return cast("Dialect", import_module(f".{folder}.dialect", __package__))
