"""Deliver what was committed, in a test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa

from outbox import own_packages
from outbox.errors import OutboxError
from outbox.message import Message
from outbox.writing.observing import watchers

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from relay import Drained

MOST_REASONS = 5

Destinations: TypeAlias = Callable[..., Any] | Mapping[str, Any]


def drain(
    database: str | sa.URL | sa.Engine | AsyncEngine,
    destinations: Destinations,
    *,
    events: Sequence[str] = ("*",),
    **settings: Any,
) -> Drained:
    """Run a relay in this thread until it has delivered everything that can be delivered now.

    The given destinations replace the registered ones of that database, as with ``outbox relay --apply``. If a listener
    raises, its message waits for a retry; ``delivered`` and ``reason`` of the result show that.

    Args:
        database: The database, migrated: its URL, or an engine connected to it. SQLite must be a file.
        destinations: One listener; or several by name, each a listener or a destination's settings.
        events: The event types that each listener subscribes to; globs are allowed.
        settings: Further settings of ``relay.Settings``.

    Returns:
        The count of ``delivered`` messages, and as ``reason`` why some were not delivered: the error of each listener
        that did not take a message, or why this relay could not work at all. ``left`` counts, by destination, the
        messages that are due and still wait, with the reason: a retry, a dead predecessor, a missing subscription.

    Raises:
        OutboxError: An event loop is running already: write ``await drain_async(…)``. Or a destination is neither a
            callable nor settings.
        Unusable: The settings or the database's schema do not allow a relay to work.

    Example:
        >>> def test_a_completed_extraction_gets_its_baseline(engine):
        ...     finish_extraction("c-1")
        ...     assert drain(engine, on_extraction_completed).delivered == 1
    """
    if _is_in_an_event_loop():
        raise OutboxError("drain starts an event loop, and one is running already: write await drain_async(…)")
    return asyncio.run(drain_async(database, destinations, events=events, **settings))


def _is_in_an_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def drain_async(
    database: str | sa.URL | sa.Engine | AsyncEngine,
    destinations: Destinations,
    *,
    events: Sequence[str] = ("*",),
    **settings: Any,
) -> Drained:
    """Run a relay as ``drain`` does, in the running event loop; parameters, result and errors are the same.

    Example:
        >>> async def test_a_completed_extraction_gets_its_baseline(engine):
        ...     await finish_extraction("c-1")
        ...     assert (await drain_async(engine, on_extraction_completed)).delivered == 1
    """
    relay = own_packages.load("relay")  # only a test that drains needs an installed relay
    named = destinations if isinstance(destinations, Mapping) else {"listener": destinations}
    quick: dict[str, Any] = {"beat_s": 0.05, "health_port": 0, **settings}
    relay_settings = relay.Settings(
        database_url=_url(database),
        destinations={name: _destination(each, events) for name, each in named.items()},
        **quick,
    )
    with _failures() as failures:
        async with relay.Relay(relay_settings, apply=True, wait_for_database=False) as running:
            drained: Drained = await running.drain()
    return replace(drained, reason=drained.reason or _why(failures))


@contextmanager
def _failures() -> Iterator[dict[tuple[str, str], str]]:
    """Collect why listeners did not take messages: for each, the reason of its last call."""
    found: dict[tuple[str, str], str] = {}

    def watch(destination: str, message: Message, reason: str | None) -> None:
        found.pop((destination, message.id), None)
        if reason is not None:
            found[destination, message.id] = f"{message.type} {message.id}: {reason}"

    watchers.append(watch)
    try:
        yield found
    finally:
        watchers.remove(watch)


def _why(failures: Mapping[tuple[str, str], str]) -> str | None:
    if not failures:
        return None
    shown = list(failures.values())[:MOST_REASONS]
    return f"{len(failures)} not taken: {'; '.join(shown)}{'; …' if len(failures) > MOST_REASONS else ''}"


def _url(database: str | sa.URL | sa.Engine | AsyncEngine) -> str:
    if isinstance(database, str):
        return database
    url: sa.URL = database if isinstance(database, sa.URL) else database.url
    return url.render_as_string(hide_password=False)


def _destination(given: Any, events: Sequence[str]) -> Any:
    if callable(given):
        return own_packages.load("relay").ListenerSettings(listener=given, events=list(events))
    if isinstance(given, Mapping) or hasattr(given, "kind"):
        return given
    raise OutboxError(
        f"{given!r} is no destination: pass a listener, as a callable, or settings, as in "
        '{"reports": ListenerSettings(listener="my_app.reports:on_completed", events=["*"])}'
    )
