"""Write messages into the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack, overload
from uuid import UUID

from sqlalchemy.orm import Session

from outbox import inbox
from outbox.checks.attributes import checked_source
from outbox.draft import Common, Draft, Options, Prepared, prepare
from outbox.errors import EmitError, InvalidEvent
from outbox.event import Event
from outbox.writing.accepted import accept
from outbox.writing.rows import write
from outbox.writing.targets import run_sync, sync_target, unit_of_work
from outbox.writing.trace import Creation, creation

if TYPE_CHECKING:
    from outbox.writing.targets import AsyncTarget, SyncTarget, Target

    Item: TypeAlias = Event | tuple[str, Any] | Draft


class Outbox:
    """One outbox of a database; a database may hold several, each in its own schema.

    The functions of the same names in the package ``outbox`` are those of ``Outbox()``.

    Args:
        schema: The PostgreSQL schema of the outbox; ``None`` follows the connection's ``search_path``.
        source: The writer, as every message's CloudEvents ``source``: a URI reference of 1 to 255 characters.

    Raises:
        InvalidSource: The source is not a URI reference.

    Example:
        >>> billing = Outbox(schema="billing", source="/billing/worker")
        >>> with Session(engine) as session, session.begin():  # doctest: +SKIP
        ...     billing.emit(session, "invoice.paid", {"invoiceId": "i-1"})
    """

    def __init__(self, *, schema: str | None = None, source: str = "outbox") -> None:
        self.schema = schema
        self.source = checked_source(source)

    @overload
    def emit(self, target: Target, event: Event, **options: Unpack[Options]) -> str: ...
    @overload
    def emit(self, target: Target, event: str, data: Any, **options: Unpack[Options]) -> str: ...
    def emit(
        self,
        target: Target,
        event: Event | str,
        data: Any = None,
        *,
        ordering_key: str | None = None,
        delay: timedelta | float | None = None,
        due_at: datetime | None = None,
        headers: Mapping[str, str] | None = None,
        subject: str | None = None,
        id: UUID | str | None = None,
        strict_order: bool = False,
        expires_in: timedelta | float | None = None,
    ) -> str:
        """Write a message into the target's transaction: it is delivered if and only if that transaction commits.

        On a session the message joins the unit of work: the next flush writes it, in the order of the calls. On an
        ``AsyncSession`` the same happens, without ``await``. On a ``Connection`` the message is written at once. A
        refused message leaves nothing behind, and the transaction stays usable.

        Args:
            target: A ``Session``, ``scoped_session``, ``AsyncSession``, ``async_scoped_session`` or ``Connection``.
            event: An instance of an ``Event`` class with a type; or an event type, followed by the data.
            data: A JSON object or array, where ``event`` is a type: at most 256 KiB, 64 levels deep.
            ordering_key: Messages with the same key are delivered one after the other; 1 to 255 characters.
            delay: How long after now the message becomes due, by the database's clock: a ``timedelta`` or seconds, at
                most ten years.
            due_at: The instant at which the message becomes due, with a time zone. Not together with ``delay``.
            headers: Text to text, sent with every delivery; at most 8 KiB of ASCII.
            subject: What the event is about, as the CloudEvents ``subject``; 1 to 1,024 characters.
            id: The message id, if the caller chooses it; by default a new UUIDv7. Each id is for one message: it is
                refused while another message with it waits, is dead, or is in the history.
            strict_order: Make other transactions that emit with this key and ``strict_order`` wait until this one ends.
                The messages of the key are then delivered in the order of the commits. Two transactions that take
                several keys in opposite order deadlock; PostgreSQL then ends one of them.
            expires_in: How long after now, or after it becomes due, an attempt may still start, by the database's
                clock: a ``timedelta`` or seconds, above 0. A delivery that has not been made by then is settled as
                *expired*.

        Returns:
            The message id: 36 characters, lower case.

        Raises:
            EmitError: A subclass says what is wrong and what to do: ``InvalidTarget``, ``InvalidEvent``,
                ``UntypedEvent``, ``InvalidType``, ``InvalidOrderingKey``, ``InvalidDelay``, ``InvalidHeaders``,
                ``InvalidSubject``, ``InvalidId``, ``InvalidData``, ``TooDeep``, ``TooLarge``; and ``DuplicateId``,
                which a session raises when it flushes.
            SchemaError: The outbox's tables do not exist. A session raises it when it flushes.
            NoTransaction: The connection is in autocommit mode (a session raises this when it flushes); or the
                session's transaction has ended or failed.

        Example:
            >>> with Session(engine) as session, session.begin():  # doctest: +SKIP
            ...     session.add(Extraction(content_id="c-1"))
            ...     emit(session, ExtractionCompleted(content_id="c-1"), ordering_key="c-1")
        """
        draft = Draft(
            event,
            data,
            ordering_key=ordering_key,
            delay=delay,
            due_at=due_at,
            headers=headers,
            subject=subject,
            id=id,
            strict_order=strict_order,
            expires_in=expires_in,
        )
        return self._emit(target, [draft])[0]

    @overload
    async def emit_async(self, target: AsyncTarget, event: Event, **options: Unpack[Options]) -> str: ...
    @overload
    async def emit_async(self, target: AsyncTarget, event: str, data: Any, **options: Unpack[Options]) -> str: ...
    async def emit_async(
        self, target: AsyncTarget, event: Event | str, data: Any = None, **options: Unpack[Options]
    ) -> str:
        """Write a message as ``emit`` does, on an ``AsyncConnection`` too.

        For an ``AsyncSession`` it is the same as ``emit``.

        Args:
            target: An ``AsyncConnection``, ``AsyncSession`` or ``async_scoped_session``.
            event: As in ``emit``.
            data: As in ``emit``.
            options: As in ``emit``.

        Returns:
            The message id.

        Raises:
            EmitError: As in ``emit``.

        Example:
            >>> async with engine.begin() as connection:  # doctest: +SKIP
            ...     await emit_async(connection, ExtractionCompleted(content_id="c-1"))
        """
        return (await self._emit_async(target, [Draft(event, data, **options)]))[0]

    def emit_many(self, target: Target, items: Iterable[Item], **common: Unpack[Common]) -> list[str]:
        """Write many messages in one round trip, in their order.

        Args:
            target: As in ``emit``; on a session the next flush writes them.
            items: Events, pairs of an event type and data, or ``Draft`` objects with their own options.
            common: The options of ``emit`` (except ``id``) for all items but ``Draft`` objects.

        Returns:
            The message ids, in the order of the items.

        Raises:
            EmitError: As in ``emit``, with the index of the item; then no item is written.

        Example:
            >>> with Session(engine) as session, session.begin():  # doctest: +SKIP
            ...     emit_many(session, [ExtractionCompleted(content_id=each) for each in ("c-1", "c-2")])
            ...     emit_many(session, [Draft("content.seen", {"id": each}, ordering_key=each) for each in ids])
        """
        return self._emit(target, _drafts(items, common))

    async def emit_many_async(self, target: AsyncTarget, items: Iterable[Item], **common: Unpack[Common]) -> list[str]:
        """Write messages as ``emit_many`` does, on an ``AsyncConnection`` too.

        For an ``AsyncSession`` it is the same as ``emit_many``.

        Args:
            target: An ``AsyncConnection``, ``AsyncSession`` or ``async_scoped_session``.
            items: As in ``emit_many``.
            common: As in ``emit_many``.

        Returns:
            The message ids, in the order of the items.

        Raises:
            EmitError: As in ``emit_many``.

        Example:
            >>> async with engine.begin() as connection:  # doctest: +SKIP
            ...     await emit_many_async(connection, [("content.seen", {"id": each}) for each in ids])
        """
        return await self._emit_async(target, _drafts(items, common))

    def once(self, target: SyncTarget, listener: str, message_id: UUID | str) -> bool:
        """Mark a message as processed by a listener, in the target's transaction; do the work only if this is ``True``.

        Mark and work commit together, so the effect happens once, however often the message is delivered. If another
        transaction is marking the same message, this call waits for its end. It returns ``False`` if that transaction
        commits and ``True`` if it rolls back.

        Args:
            target: A ``Session``, ``scoped_session`` or ``Connection``.
            listener: The name of the consumer that does the work: each listener processes a message once.
            message_id: The message's id, as in ``Message.id`` or in the header ``ce-id`` or ``webhook-id``.

        Returns:
            ``True`` the first time, ``False`` if the message was processed before.

        Raises:
            InvalidTarget: The target is not a session or connection, or is asynchronous.
            InvalidId: The database cannot store the name or the id.
            NoTransaction: The connection is in autocommit mode, so mark and work would not commit together.

        Example:
            >>> with Session(engine) as session, session.begin():  # doctest: +SKIP
            ...     if once(session, "reports", message_id):
            ...         session.add(Report(...))
        """
        sync = sync_target(target, "once_async")
        connection = inbox.connection_of(sync, self.schema) if isinstance(sync, Session) else sync
        return inbox.mark(connection, self.schema, listener, message_id)

    async def once_async(self, target: AsyncTarget, listener: str, message_id: UUID | str) -> bool:
        """Mark a message as ``once`` does, on an ``AsyncSession`` or ``AsyncConnection``.

        Args:
            target: An ``AsyncSession``, ``async_scoped_session`` or ``AsyncConnection``.
            listener: As in ``once``.
            message_id: As in ``once``.

        Returns:
            ``True`` the first time, ``False`` if the message was processed before.

        Raises:
            InvalidTarget: The target is not asynchronous.
            InvalidId: As in ``once``.
            NoTransaction: As in ``once``.

        Example:
            >>> async with AsyncSession(engine) as session, session.begin():  # doctest: +SKIP
            ...     if await once_async(session, "reports", message_id):
            ...         session.add(Report(...))
        """
        return await run_sync(target, lambda sync: self.once(sync, listener, message_id))

    def _emit(self, target: Target, drafts: list[Draft]) -> list[str]:
        sync = unit_of_work(target)
        messages = self._prepared(drafts)
        if not messages:
            return []
        if isinstance(sync, Session):
            accept(sync, self.schema, messages)
        else:
            write(sync, self.schema, messages)
        return [message.id for message in messages]

    async def _emit_async(self, target: AsyncTarget, drafts: list[Draft]) -> list[str]:
        return await run_sync(target, lambda sync: self._emit(sync, drafts))

    def _prepared(self, drafts: list[Draft]) -> list[Prepared]:
        trace = creation()
        if len(drafts) == 1:
            return [prepare(self.source, drafts[0], trace)]
        return [self._prepared_item(index, draft, trace) for index, draft in enumerate(drafts)]

    def _prepared_item(self, index: int, draft: Draft, trace: Creation) -> Prepared:
        try:
            return prepare(self.source, draft, trace)
        except EmitError as error:
            raise type(error)(f"items[{index}]: {error}") from error


def _drafts(items: Iterable[Item], common: Common) -> list[Draft]:
    if isinstance(items, Event | Draft):  # an event is iterable, too: its fields would be taken for pairs
        raise InvalidEvent(f"{ascii(items)[:60]} is one event: pass a list of events, or use emit")
    return [_draft(item, common) for item in items]


def _draft(item: Item, common: Common) -> Draft:
    if isinstance(item, tuple) and len(item) == 2:
        return Draft(item[0], item[1], **common)
    if isinstance(item, Draft):
        return item
    if isinstance(item, Event):
        return Draft(item, **common)
    raise InvalidEvent(f"{ascii(item)[:60]} is not an event: pass an Event, a pair of type and data, or a Draft")


_default = Outbox()
emit = _default.emit
emit_async = _default.emit_async
emit_many = _default.emit_many
emit_many_async = _default.emit_many_async
once = _default.once
once_async = _default.once_async
