"""How a listener is called: one decision, from its parameters, for everything that calls one or checks one."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any, Optional

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from outbox import Event, Message
from outbox.errors import SettingsError
from relay.destinations.listener.calling import Calling, how_to_call


class OwnSession(Session):
    pass


class OwnAsyncSession(AsyncSession):
    pass


class PageRead(Event, type="page.called"):
    n: int


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*given: Any, **by_name: Any) -> Any:
        return function(*given, **by_name)

    return wrapper


def with_a_session_of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(message: Message) -> Any:
        return function(message, Session())

    return wrapper


def plain(message: Message) -> None: ...
def unannotated(message): ...  # type: ignore[no-untyped-def]
def any_object(message: object) -> None: ...
def optional_message(message: Message | None) -> None: ...
def any_number(*messages: Message) -> None: ...
def with_an_option(message: Message, retries: int = 3) -> None: ...
async def coroutine(message: Message) -> None: ...
def second(message: Message, session: Session) -> None: ...
def subclass(message: Message, session: OwnSession) -> None: ...
def keyword_only(message: Message, *, session: Session) -> None: ...
def optional(message: Message, session: Session | None = None) -> None: ...
def optional_as_of_old(message: Message, session: Optional[Session] = None) -> None: ...  # noqa: UP045
def annotated(message: Message, session: Annotated[Session, "ours"]) -> None: ...
def behind_an_option(message: Message, retries: int = 3, session: Session | None = None) -> None: ...
async def async_second(message: Message, session: AsyncSession) -> None: ...
async def async_subclass(message: Message, *, db: OwnAsyncSession) -> None: ...
def returns_a_coroutine(message: Message, session: AsyncSession) -> Awaitable[None]:
    return async_second(message, session)


class Listener:
    def __call__(self, message: Message, session: OwnSession) -> None: ...

    async def on(self, message: Message, session: AsyncSession) -> None: ...


@pytest.mark.parametrize(
    ("listener", "calling"),
    [
        (plain, Calling()),
        (unannotated, Calling()),
        (any_object, Calling()),
        (optional_message, Calling()),
        (any_number, Calling()),
        (with_an_option, Calling()),
        (lambda message: None, Calling()),
        ([].append, Calling()),
        (coroutine, Calling(is_async=True)),
        (decorated(coroutine), Calling()),
        (second, Calling(Session)),
        (decorated(second), Calling(Session)),
        (with_a_session_of_its_own(second), Calling()),
        (functools.partial(second, session=Session()), Calling()),
        (functools.partial(with_an_option, retries=1), Calling()),
        (subclass, Calling(OwnSession)),
        (keyword_only, Calling(Session, "session")),
        (functools.partial(keyword_only), Calling(Session, "session")),
        (optional, Calling(Session)),
        (optional_as_of_old, Calling(Session)),
        (annotated, Calling(Session)),
        (behind_an_option, Calling(Session, "session")),
        (async_second, Calling(AsyncSession, is_async=True)),
        (async_subclass, Calling(OwnAsyncSession, "db", is_async=True)),
        (decorated(async_second), Calling(AsyncSession)),
        (Listener(), Calling(OwnSession)),
        (Listener().on, Calling(AsyncSession, is_async=True)),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__) if callable(value) else "",
)
def test_a_listener_is_called_by_its_parameters(listener: Callable[..., Any], calling: Calling) -> None:
    assert how_to_call(listener) == calling


def generator(message: Message) -> Iterator[int]:
    yield 1


def generator_that_says_none(message: Message):  # type: ignore[no-untyped-def]
    yield 1


async def async_generator(message: Message) -> AsyncIterator[int]:
    yield 1


def nothing() -> None: ...
def keyword_message(*, message: Message) -> None: ...
def data(data: dict[str, Any]) -> None: ...
def event(event: PageRead) -> None: ...
def session_first(session: Session, message: Message) -> None: ...
def two_sessions(message: Message, one: Session, other: Session) -> None: ...
def without_annotation(message: Message, session=None) -> None: ...  # type: ignore[no-untyped-def]
def required_keyword(message: Message, *, tenant: str) -> None: ...
def plain_that_asks_for_async(message: Message, session: AsyncSession) -> None: ...
async def async_that_asks_for_plain(message: Message, session: Session) -> None: ...


@pytest.mark.parametrize(
    ("listener", "says"),
    [
        (generator, "remove the yield"),
        (generator_that_says_none, "remove the yield"),
        (async_generator, "remove the yield"),
        (Listener, "is a class"),
        (nothing, "must take a message"),
        (keyword_message, "must take a message"),
        (data, r"receives an outbox.Message, but is annotated dict\[str, typing.Any\]"),
        (event, "annotated PageRead"),
        (session_first, "annotated Session"),
        (two_sessions, "also requires other"),
        (without_annotation, "must be annotated Session"),
        (required_keyword, "also requires tenant"),
        (plain_that_asks_for_async, "is not async"),
        (returns_a_coroutine, "is not async"),
        (async_that_asks_for_plain, "ask for AsyncSession"),
        (decorated(async_that_asks_for_plain), "ask for AsyncSession"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__) if callable(value) else "",
)
def test_a_listener_that_would_fail_at_each_call_is_refused_before_the_first(
    listener: Callable[..., Any], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        how_to_call(listener)
