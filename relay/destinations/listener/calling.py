"""Determine how a listener is called. Everything that calls or checks listeners uses this module."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from outbox import Message
from outbox.errors import SettingsError
from relay.platform.watchdog import name_of

SessionClass: TypeAlias = type[Session] | type[AsyncSession]

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


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
        SettingsError: The listener cannot be called, or its code would not run: it does not have a listener's
            parameters, an annotation does not resolve, or it is a class or a generator function.
    """
    label, function = name_of(listener), _function(listener)
    if inspect.isclass(listener):
        raise SettingsError(f"{label} is a class, so a call only makes an instance: name a function or an instance")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise SettingsError(f"{label} is a generator function, whose body would never run: remove the yield")
    parameters, hints = _signature(label, listener)
    _check_message(label, parameters, hints)
    wanted = _session_parameter(label, parameters[1:], hints)
    _refuse_other_requirements(label, parameters, wanted)
    is_async = inspect.iscoroutinefunction(function)
    if wanted is None:
        return Calling(is_async=is_async)
    session = _session_class(hints[wanted.name])
    _check_session(label, session, awaits=inspect.iscoroutinefunction(inspect.unwrap(function)))
    is_second = wanted is parameters[1] and wanted.kind in _POSITIONAL
    return _fitted(label, listener, Calling(session, None if is_second else wanted.name, is_async))


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
    hint = hints.get(parameters[0].name, Any)
    named = typing.get_origin(hint) or hint
    is_class = (
        isinstance(named, type) and named not in (Any, types.UnionType) and not getattr(named, "_is_protocol", False)
    )
    if is_class and not issubclass(Message, named):
        raise SettingsError(
            f"the first parameter of {label} receives an outbox.Message, but is annotated {_shown(hint)}: annotate it "
            "Message; message.data and message.event() return the emitted data"
        )


def _session_class(hint: Any) -> SessionClass | None:
    """Return the session class that an annotation names; the annotation may also allow ``None``."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    classes = [each for each in (typing.get_args(hint) if is_union else (hint,)) if isinstance(each, type)]
    return next((each for each in classes if issubclass(each, (Session, AsyncSession))), None)


def _session_parameter(label: str, rest: Sequence[Parameter], hints: Mapping[str, Any]) -> Parameter | None:
    """Return the parameter that takes a session, at any position and with any default."""
    for each in rest:
        if each.kind not in _VARIABLE and _session_class(hints.get(each.name)):
            return each
    if any(each.name == "session" and each.name not in hints for each in rest):
        raise SettingsError(f"the parameter session of {label} must be annotated Session or AsyncSession, or renamed")
    return None


def _refuse_other_requirements(label: str, parameters: Sequence[Parameter], wanted: Parameter | None) -> None:
    others = [p for p in parameters[1:] if p is not wanted and p.default is p.empty and p.kind not in _VARIABLE]
    if others:
        names = ", ".join(each.name for each in others)
        raise SettingsError(
            f"{label} also requires {names}: a listener takes a message, and may take a session, in a parameter "
            "annotated Session or AsyncSession"
        )


def _check_session(label: str, session: SessionClass | None, *, awaits: bool) -> None:
    wants_async = session is not None and issubclass(session, AsyncSession)
    if wants_async and not awaits:
        raise SettingsError(f"{label} asks for an AsyncSession and is not async")
    if not wants_async and awaits:
        raise SettingsError(f"{label} is async and asks for a Session; ask for AsyncSession")


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
    raise SettingsError(f"a decorator of {label} takes parameters other than a message and a session: {outermost}")


def _function(listener: Callable[..., Any]) -> Callable[..., Any]:
    """Return the object with the annotations: a partial's function, an object's ``__call__``."""
    while isinstance(listener, functools.partial):
        listener = listener.func
    return listener if inspect.isroutine(listener) or inspect.isclass(listener) else type(listener).__call__


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
