"""Write arrays in the forms that PostgreSQL reads: as text, or in its binary format, which it reads much faster.

Source: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO, and `array_recv` in PostgreSQL's
``src/backend/utils/adt/arrayfuncs.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

UUID, TID = (2950, 16), (27, 6)  # a type's number, which never changes, and the octets of its values


class Binary(bytes):
    """A parameter in binary format."""


def uuids(ids: Sequence[str]) -> Binary:
    """Return an array of UUIDs, from their text."""
    return _binary(UUID, ids, "-")


def addresses(of_rows: Sequence[str]) -> Binary:
    """Return an array of the addresses of rows, from the text that ``tidsend`` gives: ``\\x`` and twelve digits."""
    return _binary(TID, of_rows, "\\x")


def _binary(type_: tuple[int, int], values: Sequence[str], without: str) -> Binary:
    """Return a one-dimensional array of values that are written in hexadecimal digits, without some characters.

    One conversion for all values is ten times as fast as one for each value.
    """
    number, length = type_
    before_each = f"{length:08x}"
    octets = bytes.fromhex((before_each + before_each.join(values)).replace(without, "")) if values else b""
    return Binary(struct.pack("!iiiii", 1, 0, number, len(values), 1) + octets)


def text(values: Sequence[Any]) -> str:
    """Return an array as a literal."""
    if not values:
        return "{}"
    if None in values:
        return "{" + ",".join(map(_element, values)) + "}"
    if isinstance(values[0], int):
        return "{" + ",".join(map(str, values)) + "}"
    joined = '","'.join(values)
    if "\\" in joined or joined.count('"') > 2 * (len(values) - 1):
        return "{" + ",".join(map(_element, values)) + "}"
    return '{"' + joined + '"}'


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
