"""Every way to write a message, behind one interface: five drivers, sessions and connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from outbox import Outbox
from support.databases import Database

SYNC = [("postgres", "psycopg"), ("postgres", "psycopg2"), ("sqlite", "pysqlite")]
ASYNC = [("postgres", "psycopg"), ("postgres", "asyncpg"), ("sqlite", "aiosqlite")]


@dataclass(frozen=True)
class Way:
    """One way: a database, a driver, and the object that the caller passes."""

    kind: str
    driver: str
    is_async: bool
    target: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.driver}{'-async' if self.is_async else ''}-{self.target}"


WAYS = [
    Way(kind, driver, is_async, target)
    for is_async, drivers in ((False, SYNC), (True, ASYNC))
    for kind, driver in drivers
    for target in ("session", "connection")
]


class Writer:
    """Writes to one database in one way."""

    def __init__(self, database: Database, way: Way) -> None:
        self.database = database
        self.way = way
        self.outbox = Outbox()

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[Transaction]:
        """Yield a transaction, committed at the end and rolled back by an exception; `options` are the engine's."""
        if self.way.is_async:
            engine = self.database.async_engine(self.way.driver, **options)
            opened: Any = AsyncSession(engine) if self.way.target == "session" else engine.connect()
            async with opened as target, target.begin():
                yield Transaction(self.outbox, target)
        else:
            engine = self.database.sync_engine(self.way.driver, **options)
            with Session(engine) if self.way.target == "session" else engine.connect() as target, target.begin():
                yield Transaction(self.outbox, target)

    async def emit(self, *event: Any, **options: Any) -> str:
        """Emit one message in a separate transaction."""
        async with self.transaction() as transaction:
            return await transaction.emit(*event, **options)

    def rows(self, columns: str = "*") -> list[Any]:
        """Return the stored rows, in the order of the positions."""
        return self.database.rows(f"SELECT {columns} FROM outbox_message ORDER BY position")


class Transaction:
    """The operations of a caller in a transaction, awaitable for every target."""

    def __init__(self, outbox: Outbox, target: Any) -> None:
        self.outbox = outbox
        self.target = target
        self._awaits = isinstance(target, AsyncConnection)

    async def emit(self, *event: Any, **options: Any) -> str:
        if self._awaits:
            return await self.outbox.emit_async(self.target, *event, **options)
        return self.outbox.emit(self.target, *event, **options)

    async def emit_many(self, items: Iterable[Any], **options: Any) -> list[str]:
        if self._awaits:
            return await self.outbox.emit_many_async(self.target, items, **options)
        return self.outbox.emit_many(self.target, items, **options)

    async def once(self, listener: str, message_id: str) -> bool:
        if isinstance(self.target, AsyncConnection | AsyncSession):
            return await self.outbox.once_async(self.target, listener, message_id)
        return self.outbox.once(self.target, listener, message_id)

    async def execute(self, statement: Any) -> Any:
        result = self.target.execute(statement)
        return await result if isinstance(self.target, AsyncConnection | AsyncSession) else result

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        nested = self.target.begin_nested()
        if isinstance(self.target, AsyncConnection | AsyncSession):
            async with nested:
                yield
        else:
            with nested:
                yield
