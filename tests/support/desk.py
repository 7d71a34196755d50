"""A database with an outbox, and owning sessions on it that a test uses directly."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from outbox import emit
from outbox.tables import SHARD_COUNT
from relay.databases.database import Database as Address
from relay.databases.postgresql.store.session import PostgresStore
from relay.databases.sqlite.store.session import SqliteStore
from relay.databases.store.contract import ANY_GENERATION, Session
from relay.databases.store.records import Batch, Ruled
from relay.databases.store.rows import MESSAGE_COLUMNS, Cursors, Row
from support.databases import Database

ALL = range(SHARD_COUNT)


def take(session: Any, shards: Iterable[int]) -> list[int]:
    """Take shards; return those that were free."""
    return sorted(inherited.shard for inherited in session.ownership.take(list(shards)))


class Desk:
    """A database, the sessions opened on it, and the few things that all of these tests do."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.kind = database.kind
        self.sessions: list[Session] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for session in self.sessions:
            session.close()

    def store(
        self, *, keep_history: bool = True, lease_s: float = 15.0, skipping: Sequence[str] = ()
    ) -> PostgresStore | SqliteStore:
        address = Address.parse(self.database.url)
        if self.kind == "postgres":
            return PostgresStore(address, lease_s=lease_s, keep_history=keep_history, notify=True, skipping=skipping)
        return SqliteStore(address, keep_history=keep_history, skipping=skipping)

    def open(self, name: str = "relay-1", *, generation: int = ANY_GENERATION, **options: Any) -> Any:
        session: Any = self.store(**options).open(name, generation)
        self.sessions.append(session)
        return session

    def owner(self, name: str = "relay-1", **options: Any) -> Any:
        """Return a session that owns every shard."""
        session = self.open(name, **options)
        assert take(session, ALL) == list(ALL)
        return session

    def emit(self, count: int = 1, **options: Any) -> list[str]:
        """Emit ``count`` messages, numbered, in one transaction."""
        with self.database.engine.begin() as connection:
            return [emit(connection, "page.read", {"n": n}, **options) for n in range(count)]

    def emit_one(self, **options: Any) -> str:
        (message_id,) = self.emit(**options)
        return message_id

    def register(self, *names: str, generation: int = 1, **values: str) -> None:
        for name in names:
            self.database.execute(
                "INSERT INTO outbox_destination (name, kind, events, generation) "
                "VALUES (:name, 'listener', :events, :generation)",
                name=name,
                events='["*"]',
                generation=generation,
            )

    def position(self, message_id: str) -> int:
        return self.database.scalar("SELECT position FROM outbox_message WHERE id = :id", id=message_id)

    def states(self) -> dict[str, str]:
        """Return message → state of those that are not in history."""
        return {str(r.id): r.state for r in self.database.rows("SELECT id, state FROM outbox_message")}

    def deliveries(self, message_id: str | None = None) -> dict[tuple[str, str], str]:
        """Return (message, destination) → state."""
        rows = self.database.rows("SELECT message_id, destination, state FROM outbox_delivery")
        return {(str(r.message_id), r.destination): r.state for r in rows if message_id in (None, str(r.message_id))}

    def delivery(self, message_id: str, destination: str = "a") -> Any:
        (row,) = self.database.rows(
            "SELECT * FROM outbox_delivery WHERE message_id = :id AND destination = :destination",
            id=message_id,
            destination=destination,
        )
        return row

    def history(self) -> dict[str, Any]:
        return {str(row.id): row for row in self.database.rows("SELECT * FROM outbox_history")}

    def put_back(self, message_id: str) -> None:
        """Make a message ready again with a new stamp, as an operator does, so a relay that has passed it finds it."""
        stamp = "pg_current_xact_id()" if self.kind == "postgres" else "(SELECT max(txid) + 1 FROM outbox_message)"
        self.database.execute(
            f"UPDATE outbox_message SET state = 'ready', generation = generation + 1, txid = {stamp} WHERE id = :id",
            id=message_id,
        )

    def put_back_delivery(self, message_id: str, state: str, destination: str = "a") -> None:
        stamp = "pg_current_xact_id()" if self.kind == "postgres" else "(SELECT max(txid) + 1 FROM outbox_delivery)"
        self.database.execute(
            f"UPDATE outbox_delivery SET state = :state, due_at = NULL, generation = generation + 1, txid = {stamp} "
            "WHERE message_id = :id AND destination = :destination",
            state=state,
            id=message_id,
            destination=destination,
        )

    def make_due(self, message_id: str, table: str = "outbox_delivery", ago_s: float = 1) -> None:
        past = "clock_timestamp() - :ago * interval '1 second'"
        if self.kind == "sqlite":
            past = "strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || :ago || ' seconds')"
        column = "message_id" if table == "outbox_delivery" else "id"
        self.database.execute(f"UPDATE {table} SET due_at = {past} WHERE {column} = :id", ago=ago_s, id=message_id)

    def make_all_due(self) -> None:
        """Make all retries due at the same instant."""
        at: Any = datetime.now(UTC) - timedelta(seconds=5)
        if self.kind == "sqlite":
            at = at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        self.database.execute("UPDATE outbox_delivery SET due_at = :at", at=at)


def everything() -> Cursors:
    return Cursors(dict.fromkeys(ALL, 0))


def ids(rows: Sequence[Sequence[Any]]) -> list[str]:
    return [row[0] for row in rows]


def read_all(session: Session, cursors: Cursors, limit: int = 100) -> list[list[Any]]:
    """Read page by page until there is nothing left."""
    pages = []
    while page := session.reading.read_ready(cursors, limit).messages:
        pages.append(list(page))
    return pages


def sweep(session: Session, shards: Sequence[int] = ALL, *, fresh: Sequence[int] = ALL) -> bool:
    """Sweep all deliveries once, and finish what was discarded; return whether any held its key."""
    at: int | None = 0
    holds_keys = False
    while at is not None:
        found = session.settling.sweep(at, list(shards), list(fresh))
        session.settling.discard(found.discarded)
        at, holds_keys = found.next_at, holds_keys or found.holds_keys
    return holds_keys


def taken(*message_ids: str, generation: int = 0) -> list[Row]:
    """Return messages that every destination took, as rows at a place where the table has none."""
    empty = dict.fromkeys(MESSAGE_COLUMNS) | {"generation": generation, "address": "\\xfffffffe0001"}
    return [tuple({**empty, "id": each}.values()) for each in message_ids]


def ruling(message_id: str, destination: str, state: str, **values: Any) -> Ruled:
    """Return a simple verdict; retries and dead letters are charged."""
    charged = state in ("retry", "dead")
    defaults: dict[str, Any] = {
        "generation": 0,
        "attempts": 1 if charged else 0,
        "delay_s": 0.0,
        "reason": "it failed" if charged else None,
        "log": {"attempt": 1, "verdict": state} if charged else None,
    }
    return Ruled(message_id, destination, state, **(defaults | values))


def settle(session: Session, *ruled: Ruled, fresh: bool = True) -> list[Any]:
    """Settle; with `fresh`, the messages were read as ready, and not as deliveries that had been set aside."""
    messages = list({r.message_id: 0 for r in ruled}.items()) if fresh else []
    return session.settling.settle(Batch(messages, ruled))


def seconds_until(instant: Any) -> float:
    if isinstance(instant, str):
        instant = datetime.fromisoformat(instant + "+00:00")
    return (instant - datetime.now(UTC)).total_seconds()
