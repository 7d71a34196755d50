"""Mask payload that operators must not read, on pages, on the command line, in logs and in reasons.

Paths name that payload: ``data.email``, ``data.customer.phone``, ``headers.x-user``. ``*`` stands for any name; lists
are traversed. If a destination repeats such a value in its answer, it is masked there, too.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from outbox import Message
from relay.admin.messages.detail import DeliveryRow, MessageDetail
from relay.observe.text import MASK, masked

SHORTEST = 3  # the shortest value, in characters, that is looked for in other text


class Redaction:
    """The paths that are masked.

    Args:
        paths: Paths such as ``data.email``.

    Example:
        >>> Redaction(["data.email"]).data({"email": "ada@example.com", "n": 1})
        {'email': '***', 'n': 1}
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = [tuple(path.split(".")) for path in paths]

    def __bool__(self) -> bool:
        return bool(self._paths)

    def data(self, data: Any) -> Any:
        """Return a message's data, masked."""
        return self._masked("data", data)

    def detail(self, found: MessageDetail) -> MessageDetail:
        """Return all information about a message, with every redacted value masked."""
        if not self:
            return found
        values = self._values(found.data, found.headers)
        return dataclasses.replace(
            found,
            data=self.data(found.data),
            headers=self._masked("headers", found.headers),
            deliveries=[_without(each, values) for each in found.deliveries],
            before=[_without(each, values) for each in found.before],
        )

    def restored(self, edited: Any, original: Any) -> Any:
        """Return edited data in which each remaining mask is replaced by the original value.

        Args:
            edited: The masked data after a person has edited it.
            original: The data as it is stored.
        """
        for path in self._paths:
            if path[0] == "data":
                edited = _restored(edited, original, path[1:])
        return edited

    def _masked(self, root: str, value: Any) -> Any:
        for path in self._paths:
            if path[0] == root:
                value = _replaced(value, path[1:])
        return value

    def values_of(self, message: Message) -> list[str]:
        """Return the values of a message to mask. They come from its body: a listener may have changed the data."""
        return self._values(json.loads(message.body), message.headers)

    def _values(self, data: Any, headers: Any) -> list[str]:
        hidden = [
            text
            for path in self._paths
            for value in _found({"data": data, "headers": headers}.get(path[0]), path[1:])
            for text in _texts(value)
            if len(text) >= SHORTEST
        ]
        return sorted(set(hidden), key=len, reverse=True)


def _replaced(value: Any, path: tuple[str, ...], note: Callable[[Any], object] = lambda value: None) -> Any:
    if not path:
        note(value)
        return MASK
    match value:
        case dict():
            return {
                key: _replaced(each, path[1:], note) if path[0] in (key, "*") else each for key, each in value.items()
            }
        case list():
            return [_replaced(each, path, note) for each in value]
    return value


def _restored(edited: Any, original: Any, path: tuple[str, ...]) -> Any:
    if not path:
        return original if edited == MASK else edited
    match edited, original:
        case dict(), dict():
            return {
                key: _restored(each, original[key], path[1:]) if key in original and path[0] in (key, "*") else each
                for key, each in edited.items()
            }
        case list(), list():
            before = [*original, *[None] * len(edited)]
            return [_restored(each, old, path) for each, old in zip(edited, before, strict=False)]
    return edited


def _found(value: Any, path: tuple[str, ...]) -> list[Any]:
    """Return the values that `_replaced` would replace."""
    found: list[Any] = []
    _replaced(value, path, found.append)
    return found


def _texts(value: Any) -> Iterator[str]:
    match value:
        case dict() | list():
            for each in value.values() if isinstance(value, dict) else value:
                yield from _texts(each)
        case None | bool():
            return
        case _:
            yield str(value)


def _without(delivery: DeliveryRow, values: list[str]) -> DeliveryRow:
    return dataclasses.replace(
        delivery, reason=_cleaned(delivery.reason, values), log=_cleaned(delivery.log, values),
        next=_cleaned(delivery.next, values),
    )  # fmt: skip


def _cleaned(value: Any, values: list[str]) -> Any:
    match value:
        case str():
            return masked(value, values)
        case dict():
            return {key: _cleaned(each, values) for key, each in value.items()}
        case list():
            return [_cleaned(each, values) for each in value]
    return value
