"""The description of a kind of destination: everything that the rest of the code needs to know about it.

A kind is a folder beside this file. Its `kind.py` holds a `Kind` called ``KIND``, and imports no client library: the
library is imported when a destination is built or probed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Generic, TypeVar

from relay.databases.database import Database
from relay.databases.rights import Right
from relay.destinations.contract import Destination
from relay.destinations.policy import DestinationPolicy, LookUp

S = TypeVar("S", bound=DestinationPolicy)


@dataclass(frozen=True)
class Probed:
    """The result of a probe.

    Args:
        well: Whether the destination can be used, as far as the probe can tell.
        said: What was found.
        checked: What the probe covers, and what it does not.
    """

    well: bool
    said: str
    checked: str


@dataclass(frozen=True)
class Risk:
    """A finding of `outbox doctor` about the server behind a destination.

    Args:
        what: What was found there.
        why: Its possible effect.
        do: The remedy.
    """

    what: str
    why: str
    do: str


@dataclass(frozen=True)
class Implied:
    """A destination that an environment variable implies when no file names destinations.

    Args:
        name: The destination's name.
        variable: The variable; ``None`` for the default destination, which exists if no other one does.
        make: Returns its settings.
        origins: Field → the variable that its value comes from, to be shown in messages.
    """

    name: str
    variable: str | None
    make: Callable[[LookUp], DestinationPolicy]
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[S]):
    """A kind of destination.

    Args:
        name: The text after ``kind =``.
        settings: The model of its settings; its field ``kind`` has this name as default.
        build: Makes a destination from its name, its settings and the outbox's database, without a connection. Raises
            `SettingsError` or `ValueError` if it cannot work with these settings.
        probe: Tests whether a destination can be reached, without sending a message. An error counts as "no".
        warnings: Returns warnings about allowed but risky settings. Its second argument is the origin of the settings.
        risks: Checks whether the server may lose messages, or store them twice, after it has taken them. An error is
            reported. ``None``: there is nothing to check.
        needs: The rights in the database that such a destination needs, beyond a relay's.
        implied: The destination that a variable implies.
        extra: The extra of this distribution that installs its client library.
    """

    name: str
    settings: type[S]
    build: Callable[[str, S, Database], Destination]
    probe: Callable[[str, S], Awaitable[Probed]]
    warnings: Callable[[S, str], Sequence[str]] = lambda settings, origin: ()
    risks: Callable[[str, S], Awaitable[Sequence[Risk]]] | None = None
    needs: Callable[[S], Sequence[Right]] = lambda settings: ()
    implied: Implied | None = None
    extra: str | None = None


def of_class(name: str) -> Callable[[str, Any, Database], Destination]:
    """Return a function that makes a destination of this class from its name and settings; see `late`.

    Args:
        name: The module and the name of the class: ``"package.module:name"``.
    """
    make = late(name)
    return lambda destination, settings, _: make(destination, settings)


def late(function: str) -> Callable[..., Any]:
    """Return a function that imports the named function only when called, because that one imports a client library.

    Args:
        function: Its module and its name: ``"package.module:name"``.
    """
    module, _, name = function.partition(":")

    def call(*arguments: Any) -> Any:
        return getattr(import_module(module), name)(*arguments)

    return call
