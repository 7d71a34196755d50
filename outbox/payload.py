"""The data of a message as JSON text, once it is certain that every database and wire can hold it.

What is refused here would otherwise fail inside the worker's transaction (PostgreSQL takes neither NUL nor NaN), come
back as something else, or be a message that no listener can read.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from outbox.errors import InvalidData, TooDeep, TooLarge

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
# Python's own json refuses to read an integer of more than 4,300 digits.
MAX_INTEGER_BITS = 14_000

_Path = tuple[str | int, ...]


def to_payload(data: Any) -> str:
    """Check the data and serialise it as compact JSON.

    What JSON has no type for is written the way pydantic does: a ``datetime`` as ISO 8601, a ``Decimal`` and a ``UUID``
    as text, a set as an array, an enum as its value, a model by its aliases.

    Args:
        data: A JSON object or array; at most 64 levels deep and 262,144 bytes (UTF-8) long.

    Raises:
        InvalidData: Something in it cannot be stored as JSON.
        TooDeep: It is nested too deep.
        TooLarge: It is too long.

    Example:
        >>> to_payload({"contentId": "c-1", "topics": ["outbox"]})
        '{"contentId":"c-1","topics":["outbox"]}'
    """
    _check(data, (), MAX_DEPTH)
    serialised = to_json(data)
    if serialised[:1] not in b"{[":
        # A number by itself would change on SQLite, whose JSON columns hold text that looks like a number as one.
        raise InvalidData(f'data is {ascii(data)[:20]}, not an object or array: wrap it, as in {{"value": …}}')
    if len(serialised) > MAX_BYTES:
        raise TooLarge(
            f"the data is {len(serialised):,} bytes as JSON and the limit is {MAX_BYTES:,}: "
            "store the bulk elsewhere and emit where to find it"
        )
    return serialised.decode()


def is_storable(text: str) -> bool:
    """Whether a database can store the text: PostgreSQL takes no NUL, and UTF-8 has no lone surrogates."""
    if "\0" in text:
        return False
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _check(value: Any, path: _Path, room: int) -> None:
    kind = type(value)
    if kind is str:
        _check_text(value, path)
    elif kind is dict:
        _check_object(value, path, room)
    elif kind is list or kind is tuple:
        _check_array(value, path, room)
    elif kind is float:
        _check_float(value, path)
    elif kind is int:
        _check_integer(value, path)
    elif value is not None and kind is not bool:
        _check(_converted(value, path), path, room)


def _check_object(value: dict[Any, Any], path: _Path, room: int) -> None:
    if room == 0:
        raise _too_deep(path)
    for key, item in value.items():
        if type(key) is not str:
            raise _refused(path, f"has the key {ascii(key)[:60]}, and JSON's keys are strings: use str(key)")
        if not is_storable(key):
            raise _refused(path, f"has the key {ascii(key)[:60]}, which holds NUL or a lone surrogate: replace it")
        _check(item, (*path, key), room - 1)


def _check_array(value: list[Any] | tuple[Any, ...], path: _Path, room: int) -> None:
    if room == 0:
        raise _too_deep(path)
    for index, item in enumerate(value):
        _check(item, (*path, index), room - 1)


def _check_text(value: str, path: _Path) -> None:
    if not is_storable(value):
        raise _refused(path, "holds NUL or a lone surrogate, which no JSON column can store: remove or replace it")


def _check_float(value: float, path: _Path) -> None:
    if not math.isfinite(value):
        raise _refused(path, f"is {value}, which JSON does not have: use None or a string")


def _check_integer(value: int, path: _Path) -> None:
    if value.bit_length() > MAX_INTEGER_BITS:
        raise _refused(path, "is an integer of more than 4,000 digits, which few can read: use a string")


def _converted(value: Any, path: _Path) -> Any:
    """A value of another type, as pydantic would write it."""
    try:
        converted = to_jsonable_python(value)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise _refused(path, f"cannot be written as JSON: {error}") from error
    if type(converted) not in _JSON_TYPES:
        raise _refused(path, f"is of {type(value)}, which cannot be written as JSON: convert it first")
    return converted


_JSON_TYPES = frozenset({str, dict, list, float, int, bool, type(None)})


def _refused(path: _Path, problem: str) -> InvalidData:
    return InvalidData(f"{_named(path)} {problem}")


def _too_deep(path: _Path) -> TooDeep:
    return TooDeep(f"the data is nested more than {MAX_DEPTH} levels deep at {_named(path[:4])}…: flatten it")


def _named(path: _Path) -> str:
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{ascii(step)[1:-1]}" for step in path)
    return "data" + steps[:200]
