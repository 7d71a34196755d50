"""Serialise the data of a message as JSON text that every database and wire can hold.

One pass over the data copies it into JSON's own types and checks the copy; the text is made from that copy. So the
checked values are exactly the values that are sent. This also holds for an iterator, which yields its items once, and
for objects that another thread changes.

Data that is refused here would otherwise fail inside the worker's transaction (PostgreSQL takes neither NUL nor NaN),
come back with another value, or become a message that no listener can read.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from pydantic_core import PydanticSerializationError, SchemaSerializer, core_schema, to_json

from outbox.errors import InvalidData, TooDeep, TooLarge

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
# Python's own json refuses to read an integer of more than 4,300 digits.
MAX_INTEGER_BITS = 14_000

_serializer = SchemaSerializer(core_schema.any_schema(), core_schema.CoreConfig(ser_json_inf_nan="constants"))

_Path = tuple[str | int, ...]


def to_payload(data: Any) -> str:
    """Check the data and serialise it as compact JSON.

    Values of other types are written as pydantic writes them: a ``datetime`` as ISO 8601, a ``Decimal`` and a ``UUID``
    as text, a set or an iterator as an array, an enum as its value, a model by its aliases.

    Args:
        data: A JSON object or array; at most 64 levels deep and 262,144 bytes (UTF-8) long.

    Raises:
        InvalidData: A value in it cannot be stored as JSON.
        TooDeep: It is nested too deep.
        TooLarge: It is too long.

    Example:
        >>> to_payload({"contentId": "c-1", "topics": ["outbox"]})
        '{"contentId":"c-1","topics":["outbox"]}'
    """
    serialised = to_json(_plain(data, (), MAX_DEPTH))
    if serialised[:1] not in b"{[":
        # SQLite would change a bare number: its JSON columns turn text that looks like a number into one.
        raise InvalidData(f'data is {ascii(data)[:20]}, not an object or array: wrap it, as in {{"value": …}}')
    if len(serialised) > MAX_BYTES:
        raise TooLarge(
            f"the data is {len(serialised):,} bytes as JSON and the limit is {MAX_BYTES:,}: "
            "store the bulk elsewhere and emit where to find it"
        )
    return serialised.decode()


def is_storable(text: str) -> bool:
    """Return whether a database can store the text: PostgreSQL takes no NUL, and UTF-8 has no lone surrogates."""
    if "\0" in text:
        return False
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def to_jsonable(value: Any) -> Any:
    """Return a value of another type in JSON's own types, as pydantic writes it.

    Raises:
        InvalidData: Pydantic cannot write it.
    """
    return _converted(value, ())


def _plain(value: Any, path: _Path, room: int) -> Any:
    """Return a checked copy of JSON's own types."""
    kind = type(value)
    if kind is str:
        _check_text(value, path)
    elif kind is float:
        _check_float(value, path)
    elif kind is int:
        _check_integer(value, path)
    elif isinstance(value, dict):
        return _plain_object(value, path, room)
    elif isinstance(value, list | tuple):
        return _plain_array(value, path, room)
    elif value is not None and kind is not bool:
        return _plain(_converted(value, path), path, room)
    return value


def _plain_object(value: dict[Any, Any], path: _Path, room: int) -> dict[str, Any]:
    if room == 0:
        raise _too_deep(path)
    plain = {}
    for key, item in value.items():
        if type(key) is not str:
            raise _refused(path, f"has the key {ascii(key)[:60]}, and JSON's keys are strings: use str(key)")
        if not (key.isascii() and "\0" not in key) and not is_storable(key):
            raise _refused(path, f"has the key {ascii(key)[:60]}, which holds NUL or a lone surrogate: replace it")
        plain[key] = item if _is_plain(item) else _plain(item, (*path, key), room - 1)
    return plain


def _plain_array(value: list[Any] | tuple[Any, ...], path: _Path, room: int) -> list[Any]:
    if room == 0:
        raise _too_deep(path)
    return [item if _is_plain(item) else _plain(item, (*path, index), room - 1) for index, item in enumerate(value)]


def _is_plain(value: Any) -> bool:
    """Return whether a value needs no conversion and no refusal. Most values do, so no path is built for them."""
    kind = type(value)
    if kind is str:
        return (value.isascii() and "\0" not in value) or is_storable(value)
    if kind is int:
        return bool(value.bit_length() <= MAX_INTEGER_BITS)
    return math.isfinite(value) if kind is float else value is None or kind is bool


def _check_text(value: str, path: _Path) -> None:
    if not is_storable(value):
        raise _refused(path, "holds NUL or a lone surrogate, which no JSON column can store: remove or replace it")


def _check_float(value: float, path: _Path) -> None:
    if not math.isfinite(value):
        raise _refused(path, f"is {value}, which JSON does not have: use None or a string")


def _check_integer(value: int, path: _Path) -> None:
    if value.bit_length() > MAX_INTEGER_BITS:
        raise _refused(path, "is an integer of more than 4,000 digits, which few parsers read: use a string")


def _converted(value: Any, path: _Path) -> Any:
    """Return a value of another type in JSON's own types, as pydantic writes it."""
    try:
        converted = _serializer.to_python(value, mode="json", by_alias=True)
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise _refused(path, f"cannot be written as JSON ({ascii(str(error))[1:-1]}): convert it first") from error
    if type(converted) not in _JSON_TYPES:
        raise _refused(path, f"is of {type(value)}, which cannot be written as JSON: convert it first")
    if isinstance(value, datetime) or hasattr(value, "__pydantic_serializer__"):
        _check_what_pydantic_hides(converted, _serializer.to_python(value, by_alias=True), path)
    return converted


def _check_what_pydantic_hides(converted: Any, original: Any, path: _Path) -> None:
    """Refuse a null that was NaN, and a time without a time zone, where the output has the shape of the original."""
    if converted is None and type(original) is float:
        _check_float(original, path)
    elif isinstance(original, datetime) and original.utcoffset() is None and converted == original.isoformat():
        raise _refused(path, "is a datetime without a time zone, which is ambiguous: give it one")
    elif isinstance(converted, dict) and isinstance(original, dict):
        for key in converted.keys() & original.keys():
            _check_what_pydantic_hides(converted[key], original[key], (*path, key))
    elif isinstance(converted, list) and isinstance(original, list | tuple):
        for index, (item, its_original) in enumerate(zip(converted, original, strict=False)):
            _check_what_pydantic_hides(item, its_original, (*path, index))


_JSON_TYPES = frozenset({str, dict, list, float, int, bool, type(None)})


def _refused(path: _Path, problem: str) -> InvalidData:
    return InvalidData(f"{_named(path)} {problem}")


def _too_deep(path: _Path) -> TooDeep:
    return TooDeep(f"the data is nested more than {MAX_DEPTH} levels deep at {_named(path[:4])}…: flatten it")


def _named(path: _Path) -> str:
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{ascii(step)[1:-1]}" for step in path)
    return "data" + steps[:200]
