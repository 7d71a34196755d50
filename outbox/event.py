"""Events: pydantic models of what happened, each with a type."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from outbox.checks.payload import to_jsonable
from outbox.errors import InvalidType, UnknownEvent

MAX_TYPE_LENGTH = 255
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")


class Event(BaseModel):
    """The base of all events: subclass it with a type, and declare the fields that are sent.

    Field names become camelCase on the wire; Python accepts both spellings. To change that, give a field an ``alias``
    or the class its own ``model_config``. A model nested in an event keeps its own names, unless it subclasses
    ``Event`` too. A class without a type may serve as a base; ``emit`` refuses its instances.

    Args:
        type: The event type, as a class keyword: words of letters, digits, ``_`` and ``-``, separated by dots, at
            most 255 characters.

    Raises:
        InvalidType: The type is malformed; raised when the class is defined.

    Example:
        >>> class ExtractionCompleted(Event, type="extraction.completed"):
        ...     content_id: str
        >>> ExtractionCompleted(content_id="c-1").to_data()
        {'contentId': 'c-1'}
    """

    # By default pydantic writes null for a NaN in a field of any type. We refuse NaN there as everywhere else.
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, ser_json_inf_nan="constants"
    )

    __event_type__: ClassVar[str | None] = None

    def __init_subclass__(cls, *, type: str | None = None, **config: Any) -> None:
        super().__init_subclass__(**config)

    @classmethod
    def __pydantic_init_subclass__(cls, *, type: str | None = None, **config: Any) -> None:
        super().__pydantic_init_subclass__(**config)
        if type is not None:
            cls.__event_type__ = checked_type(type)
            _classes.setdefault(type, {})[cls.__module__, cls.__qualname__] = cls

    def to_data(self) -> Any:
        """Return the event in JSON's own types, with the names that are used on the wire.

        Raises:
            InvalidData: A field cannot be written as JSON.
        """
        return to_jsonable(self)


# By type, then by module and qualified name: reloading a module then replaces its classes.
_classes: dict[str, dict[tuple[str, str], type[Event]]] = {}


def checked_type(given: str) -> str:
    """Return an event type, if every wire can carry it.

    Raises:
        InvalidType: The type is malformed.
    """
    if not isinstance(given, str) or len(given) > MAX_TYPE_LENGTH or not _TYPE.fullmatch(given):
        raise InvalidType(
            f"the event type {ascii(given)[:80]} is malformed: write words of letters, digits, _ and -, separated "
            f"by dots, at most {MAX_TYPE_LENGTH} characters, as in extraction.completed"
        )
    return given


def event_class(type_: str) -> type[Event]:
    """Return the Event class that was defined for a type.

    Raises:
        UnknownEvent: No class, or more than one, was defined with this type.
    """
    found = list(_classes.get(type_, {}).values())
    if len(found) == 1:
        return found[0]
    if not found:
        raise UnknownEvent(
            f"no Event class has the type {type_!r}: import the module that defines it, "
            "or name the class with message.event(YourEvent)"
        )
    names = ", ".join(f"{each.__module__}.{each.__qualname__}" for each in found)
    raise UnknownEvent(f"the type {type_!r} has several Event classes ({names}): name one with message.event(…)")
