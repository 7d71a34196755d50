"""Interpret a listener's annotations: its session class, its message parameter, its return value."""

from __future__ import annotations

import types
import typing
from collections.abc import Awaitable, Iterator
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from outbox import Message

SessionClass: TypeAlias = type[Session] | type[AsyncSession]


def session_class(hint: Any) -> SessionClass | None:
    """Return the session class that a parameter asks for: the annotated class itself, or a subclass of a session class.

    Raises:
        ValueError: The annotation allows more than one class of session.
    """
    found = [each for each in _alternatives(hint) if _is_class_of(each, Session, AsyncSession)]
    if len(found) > 1:
        raise ValueError(f"it allows {' and '.join(each.__name__ for each in found)}")
    return found[0] if found else None


def takes_message(hint: Any) -> bool:
    """Return whether a parameter with this annotation takes a message; ``True`` if that cannot be determined."""
    return any(_takes_message(each) for each in _alternatives(hint))


def is_awaitable(hint: Any) -> bool:
    """Return whether a function with this return annotation returns an awaitable."""
    return any(_is_class_of(each, Awaitable) for each in _alternatives(hint))


def may_be_none(hint: Any) -> bool:
    """Return whether a function with this return annotation may return ``None`` or an awaitable."""
    open_to_it = any(not _is_plain_class(each) or each in (object, types.NoneType) for each in _alternatives(hint))
    return open_to_it or is_awaitable(hint)


def _takes_message(hint: Any) -> bool:
    if not _is_plain_class(hint) or getattr(hint, "_is_protocol", False):
        return hint is not None and hint is not types.NoneType
    return issubclass(Message, typing.get_origin(hint) or hint)


def _alternatives(hint: Any) -> Iterator[Any]:
    """Yield the members of a union, resolved: aliases by their values, type variables by their bounds."""
    hint = getattr(hint, "__value__", hint)
    if isinstance(hint, typing.TypeVar):
        hint = hint.__bound__ or Any
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for each in typing.get_args(hint):
            yield from _alternatives(each)
    elif typing.get_origin(hint) is typing.Annotated:
        yield from _alternatives(typing.get_args(hint)[0])
    else:
        yield types.NoneType if hint is None else hint


def _is_plain_class(hint: Any) -> bool:
    """Return whether it is a class or a generic class, and not a special form such as ``Any`` or ``NoReturn``."""
    return isinstance(typing.get_origin(hint) or hint, type) and hint is not Any


def _is_class_of(hint: Any, *classes: type) -> bool:
    found = typing.get_origin(hint) or hint
    return isinstance(found, type) and found is not Any and issubclass(found, classes)
