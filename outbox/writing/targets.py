"""The targets that a message can be written through, and how to reach the synchronous object inside each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sqlalchemy import Connection
from sqlalchemy.orm import Session
from sqlalchemy.util import ScopedRegistry

from outbox.errors import InvalidTarget

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import scoped_session

    SyncTarget: TypeAlias = Session | scoped_session[Any] | Connection
    AsyncTarget: TypeAlias = AsyncConnection | AsyncSession | async_scoped_session[Any]
    Target: TypeAlias = SyncTarget | AsyncSession | async_scoped_session[Any]

T = TypeVar("T")

_JOINED_AT_ONCE = (Session, Connection)
_DRIVERS = frozenset({"psycopg", "psycopg2", "psycopg_pool", "asyncpg", "django"})


def unit_of_work(target: Target) -> Session | Connection:
    """Return the session that a message can join without awaiting anything, or the connection to write it to.

    Raises:
        InvalidTarget: The target is neither, or is a connection that has to be awaited.
    """
    if isinstance(target, _JOINED_AT_ONCE):
        return target
    # Checked by attribute: importing sqlalchemy.ext.asyncio is left to hosts that use it.
    inner = _unwrapped(target)
    return sync_target(getattr(inner, "sync_session", inner), "emit_async")


def sync_target(target: object, instead: str) -> Session | Connection:
    """Return the session or connection, if it works without ``await``.

    Args:
        target: The target that the caller passed.
        instead: The function to await for an asynchronous target.

    Raises:
        InvalidTarget: The target is asynchronous, or is neither.
    """
    inner = _unwrapped(target)
    if isinstance(inner, Session | Connection):
        return inner
    if hasattr(inner, "run_sync"):
        raise InvalidTarget(f"{type(inner).__name__} is asynchronous: write await {instead}(…)")
    if type(inner).__module__.partition(".")[0] in _DRIVERS:
        raise InvalidTarget(
            f"{_described(inner)} is a driver's own connection: execute SELECT outbox_emit('page.read', '{{}}') in its "
            "transaction, which writes the same message; or pass a SQLAlchemy Session or Connection"
        )
    raise InvalidTarget(
        f"{_described(inner)} has no transaction to join: pass a Session or Connection (or their async kind), not an "
        "engine, a session factory or a URL"
    )


async def run_sync(target: AsyncTarget, work: Callable[[Any], T]) -> T:
    """Run synchronous work on an asynchronous session or connection.

    Raises:
        InvalidTarget: It is not asynchronous.
    """
    inner = _unwrapped(target)
    if type(inner).__module__.partition(".")[0] in _DRIVERS:
        sync_target(inner, "emit_async")
    if not hasattr(inner, "run_sync"):
        raise InvalidTarget(f"{_described(inner)} is not asynchronous: call the function without _async")
    result: T = await inner.run_sync(work)
    return result


def _unwrapped(target: Any) -> Any:
    """Return the session of this thread or task, if the target is a registry of sessions."""
    registry = getattr(target, "registry", None)
    return registry() if isinstance(registry, ScopedRegistry) else target


def _described(target: object) -> str:
    return f"{type(target).__module__}.{type(target).__qualname__}"
