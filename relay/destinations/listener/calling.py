"""Determine how a listener is called. Everything that calls or checks listeners uses this module."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from outbox.errors import SettingsError
from relay.destinations.listener.hints import SessionClass, is_awaitable, may_be_none, session_class, takes_message
from relay.platform.watchdog import name_of

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_MOST_LAYERS = 50


@dataclass(frozen=True, slots=True)
class Calling:
    """How one listener is called.

    Args:
        session: The class of the session that it receives; ``None`` for none.
        keyword: The parameter that takes the session, if it is not the second position.
        is_async: Whether the listener is declared as a coroutine function: it is called on the event loop.
    """

    session: SessionClass | None = None
    keyword: str | None = None
    is_async: bool = False

    @property
    def wants_async_session(self) -> bool:
        return self.session is not None and issubclass(self.session, AsyncSession)

    def caller(self, listener: Callable[..., Any]) -> Callable[[object, object], Any]:
        """Return a function of a message and a session that calls the listener."""

        def call(message: object, session: object) -> Any:
            positional, by_keyword = self.arguments(message, session)
            return listener(*positional, **by_keyword)

        return call

    def arguments(self, message: object, session: object) -> tuple[tuple[object, ...], dict[str, object]]:
        """Return the listener's arguments, by position and by keyword."""
        if self.session is None:
            return (message,), {}
        return ((message, session), {}) if self.keyword is None else ((message,), {self.keyword: session})


def how_to_call(listener: Callable[..., Any]) -> Calling:
    """Determine how a listener is called, from its parameters and their annotations.

    Raises:
        SettingsError: It cannot be called, or would not run: it does not have a listener's parameters, an annotation
            does not resolve, or it is a class or a generator function.
    """
    label = name_of(listener)
    _refuse_what_would_not_run(label, listener)
    parameters, hints = _signature(label, listener)
    _check_message(label, parameters, hints)
    wanted = _session_parameter(label, parameters[1:], hints)
    _refuse_other_requirements(label, parameters, wanted)
    calling = _calling(label, listener, parameters, hints, wanted)
    return _fitted(label, listener, calling)


def _refuse_what_would_not_run(label: str, listener: Callable[..., Any]) -> None:
    if inspect.isclass(listener):
        raise SettingsError(f"{label} is a class, so a call only makes an instance: name a function or an instance")
    function = _function(listener)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise SettingsError(f"{label} is a generator function, whose body would never run: remove the yield")


def _signature(label: str, listener: Callable[..., Any]) -> tuple[list[Parameter], Mapping[str, Any]]:
    try:
        parameters = list(inspect.signature(listener).parameters.values())
        hints = typing.get_type_hints(_function(listener))
    except (NameError, AttributeError, TypeError, ValueError) as error:
        raise SettingsError(
            f"the annotations of {label} do not resolve: {error}; import what they name at the top of that module, not "
            "under TYPE_CHECKING"
        ) from error
    bound = listener.keywords if isinstance(listener, functools.partial) else {}
    return [each for each in parameters if each.name not in bound], hints


def _check_message(label: str, parameters: Sequence[Parameter], hints: Mapping[str, Any]) -> None:
    if not parameters or parameters[0].kind not in (*_POSITIONAL, Parameter.VAR_POSITIONAL):
        raise SettingsError(f"{label} must take a message as its first parameter, and may take a session")
    first = parameters[0].name
    if first in hints and not takes_message(hints[first]):
        raise SettingsError(
            f"the first parameter of {label} receives an outbox.Message, but is annotated {_shown(hints[first])}: "
            "annotate it Message; message.data and message.event() return the emitted data"
        )


def _session_parameter(label: str, rest: Sequence[Parameter], hints: Mapping[str, Any]) -> Parameter | None:
    """Return the parameter that takes a session, at any position and with any default."""
    try:
        found = [p for p in rest if p.kind not in _VARIABLE and session_class(hints.get(p.name))]
    except ValueError as error:
        raise SettingsError(f"{label} asks for a session, and {error}: annotate one class") from None
    if len(found) > 1:
        raise SettingsError(f"{label} asks for {len(found)} sessions, but it has one transaction: ask for one session")
    unclear = [p for p in rest if p.name == "session" and p.name not in hints]
    if not found and unclear:
        raise SettingsError(f"the parameter session of {label} must be annotated Session or AsyncSession, or renamed")
    return found[0] if found else None


def _refuse_other_requirements(label: str, parameters: Sequence[Parameter], wanted: Parameter | None) -> None:
    others = [p for p in parameters[1:] if p is not wanted and p.default is p.empty and p.kind not in _VARIABLE]
    if wanted is None and others and others == [parameters[1]] and others[0].kind in _POSITIONAL:
        raise SettingsError(f"the second parameter of {label} must be annotated Session or AsyncSession")
    if others:
        names = ", ".join(each.name for each in others)
        raise SettingsError(f"{label} must take a message, and may take a session, but also requires {names}")


def _calling(
    label: str,
    listener: Callable[..., Any],
    parameters: Sequence[Parameter],
    hints: Mapping[str, Any],
    wanted: Parameter | None,
) -> Calling:
    is_async = inspect.iscoroutinefunction(_function(listener))
    returned = hints.get("return")
    if not hasattr(listener, "__wrapped__") and not may_be_none(returned):
        raise SettingsError(f"{label} is annotated to return {_shown(returned)}: a listener returns None")
    if wanted is None:
        return Calling(is_async=is_async)
    session = session_class(hints[wanted.name])
    assert session is not None
    awaits = is_async or is_awaitable(returned) or _wraps_a_coroutine_function(listener)
    _check_session(label, session, awaits=awaits)
    is_second = wanted is parameters[1] and wanted.kind in _POSITIONAL
    return Calling(session, None if is_second else wanted.name, is_async)


def _check_session(label: str, session: SessionClass, *, awaits: bool) -> None:
    if issubclass(session, AsyncSession) and not awaits:
        raise SettingsError(f"{label} asks for an AsyncSession and is not async")
    if not issubclass(session, AsyncSession) and awaits:
        raise SettingsError(f"{label} is async and asks for a Session; ask for AsyncSession")
    try:
        inspect.signature(session).bind(object())
    except TypeError as error:
        raise SettingsError(f"{label} asks for {session.__name__}, which needs more than an engine: {error}") from None


def _fitted(label: str, listener: Callable[..., Any], calling: Calling) -> Calling:
    """Return the call that the outermost callable accepts: a decorator may supply the session itself."""
    outermost = inspect.signature(listener, follow_wrapped=False)
    for each in (calling, Calling(is_async=calling.is_async)):
        positional, by_keyword = each.arguments(object(), object())
        try:
            outermost.bind(*positional, **by_keyword)
        except TypeError:
            continue
        return each
    raise SettingsError(f"a decorator of {label} has other parameters than a message and a session: {outermost}")


def _function(listener: Callable[..., Any]) -> Callable[..., Any]:
    """Return the object with the annotations: a partial's function, an object's ``__call__``."""
    while isinstance(listener, functools.partial):
        listener = listener.func
    return listener if inspect.isroutine(listener) or inspect.isclass(listener) else type(listener).__call__


def _wraps_a_coroutine_function(listener: Callable[..., Any]) -> bool:
    return any(inspect.iscoroutinefunction(each) for each in _layers(listener))


def _layers(listener: Any) -> Iterator[Any]:
    """Yield the layers of a callable, from the outermost to the innermost."""
    for _ in range(_MOST_LAYERS):
        listener = getattr(_function(listener), "__wrapped__", None)
        if listener is None:
            return
        yield listener


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
