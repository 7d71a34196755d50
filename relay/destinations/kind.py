"""What a kind of destination is made of: everything that the rest of the code needs to know about it.

A kind is a folder beside this file. Its `kind.py` holds a `Kind` called ``KIND``, and imports no client library: that
has time until something is built, checked or probed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from relay.destinations.contract import Destination
from relay.destinations.policy import DestinationPolicy, LookUp
from relay.platform.database import Database
from relay.platform.rights import Right

S = TypeVar("S", bound=DestinationPolicy)


@dataclass(frozen=True)
class Probed:
    """What a probe found.

    Args:
        well: Whether anything speaks against the destination.
        said: What was found.
        checked: What that does and does not tell.
    """

    well: bool
    said: str
    checked: str


@dataclass(frozen=True)
class Risk:
    """What `outbox doctor` says of the other side of a destination.

    Args:
        what: What was found there.
        why: What it may lead to.
        do: What to do about it.
    """

    what: str
    why: str
    do: str


@dataclass(frozen=True)
class Implied:
    """A destination that an environment variable stands for, where no file names destinations.

    Args:
        name: The destination's name.
        variable: The variable; ``None`` for the destination that is there when no other one is.
        make: Makes its settings.
        origins: Field → the variable that its value comes from, for messages.
    """

    name: str
    variable: str | None
    make: Callable[[LookUp], DestinationPolicy]
    origins: Mapping[str, str] = field(default_factory=dict)


def _checks_nothing(name: str, settings: Any) -> None:
    """Find nothing wrong."""


def _warns_of_nothing(settings: Any, origin: str) -> Sequence[str]:
    return ()


def _needs_nothing(settings: Any) -> Sequence[Right]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[S]):
    """A kind of destination.

    Args:
        name: What ``kind = "…"`` says.
        settings: The model of its settings; its field ``kind`` has this name as default.
        build: Makes a destination from its name, its settings and the outbox's database.
            Raises `SettingsError` where it cannot work as it is configured.
        probe: Finds out whether a destination can be reached, and sends no message. What it raises counts as "no".
        check: Looks at what can be looked at without a network, and raises `SettingsError`.
        warnings: Says what is permitted and probably not meant. Its second argument says where the settings come from.
        risks: Looks at what the other side may do with messages that it took. What it raises is reported.
            ``None``: there is nothing to look at.
        needs: The rights in the database that such a destination needs, beyond a relay's.
        implied: The destination that a variable stands for.
        extra: The extra of this distribution that installs its client library.
    """

    name: str
    settings: type[S]
    build: Callable[[str, S, Database], Destination]
    probe: Callable[[str, S], Awaitable[Probed]]
    check: Callable[[str, S], None] = _checks_nothing
    warnings: Callable[[S, str], Sequence[str]] = _warns_of_nothing
    risks: Callable[[str, S], Awaitable[Sequence[Risk]]] | None = None
    needs: Callable[[S], Sequence[Right]] = _needs_nothing
    implied: Implied | None = None
    extra: str | None = None
