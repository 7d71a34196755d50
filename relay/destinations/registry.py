"""The kinds of destinations: ours, and those of installed packages.

A package adds a kind through the entry-point group ``neverlost.destinations``: the entry point has the kind's name, and
refers to a `relay.destinations.kind.Kind`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from outbox.errors import SettingsError
from relay.databases.database import Database
from relay.destinations.contract import Destination
from relay.destinations.kind import Implied, Kind
from relay.destinations.policy import DestinationPolicy
from relay.observe.errors import in_words

GROUP = "neverlost.destinations"
OURS = ("listener", "http", "rabbitmq", "redis", "nats", "kafka")


def names() -> list[str]:
    """Return the names of all kinds, ours first."""
    return [*OURS, *(name for name in sorted(_theirs()) if name not in OURS)]


def listed() -> str:
    """Return the names of all kinds, as a list in a sentence."""
    *others, last = [f'"{name}"' for name in names()]
    return f"{', '.join(others)} or {last}"


@cache
def kind(name: str) -> Kind[DestinationPolicy]:
    """Return a kind by its name.

    Raises:
        SettingsError: No kind has this name, or its package cannot be used.
    """
    if name in OURS:
        found: Kind[DestinationPolicy] = import_module(f".{name}.kind", __package__).KIND
        return found
    offers = _theirs().get(name, [])
    if not offers:
        raise SettingsError(f"there is no kind {ascii(name)[:60]}: use {listed()}; a package can bring others")
    if len(offers) > 1:
        values = " and ".join(each.value for each in offers)
        raise SettingsError(f"several installed packages bring the kind {name} ({values}): uninstall all but one")
    return _loaded(offers[0])


def implied() -> Iterator[Implied]:
    """Yield the destinations that variables imply; the default one, without a variable, comes last."""
    found = [each for name in OURS if (each := kind(name).implied)]
    yield from sorted(found, key=lambda each: each.variable is None)


def build(name: str, settings: DestinationPolicy, database: Database) -> Destination:
    """Make a destination from its settings.

    Args:
        name: The destination's name.
        settings: Its settings.
        database: The database of the outbox.

    Raises:
        SettingsError: It cannot work with these settings, or its client library is not installed.
    """
    with needing_its_library(name, settings.kind) as found:
        try:
            return found.build(name, settings, database)
        except (SettingsError, ValueError) as error:
            raise SettingsError(f"destination {name}: {error}") from None


def check(name: str, settings: DestinationPolicy) -> None:
    """Check everything that needs no network: make the destination, and drop it.

    Raises:
        SettingsError: It cannot work with these settings, or its client library is not installed.
    """
    build(name, settings, Database.parse("sqlite:///never-opened.db"))


@contextmanager
def needing_its_library(name: str, of_kind: str) -> Iterator[Kind[DestinationPolicy]]:
    """Translate the error of a missing client library: name the extra to install.

    Raises:
        SettingsError: The library is missing.
    """
    found = kind(of_kind)
    try:
        yield found
    except ModuleNotFoundError as error:
        if found.extra is None:
            raise
        raise SettingsError(
            f"destination {name}: kind {of_kind} needs {error.name}, which is not installed: "
            f"install the extra {found.extra}, in a checkout with pip install '.[{found.extra}]'"
        ) from error


@cache
def _theirs() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for each in entry_points(group=GROUP):
        found.setdefault(each.name, []).append(each)
    return found


def _loaded(offer: EntryPoint) -> Kind[DestinationPolicy]:
    where = f"the kind {offer.name} ({offer.value}, entry-point group {GROUP})"
    try:
        found = offer.load()
    except Exception as error:  # a module may raise any error when it is imported
        raise SettingsError(f"{where} cannot be loaded: {in_words(error)}") from error
    if not isinstance(found, Kind):
        raise SettingsError(f"{where} is not a relay.destinations.kind.Kind")
    if not found.name == offer.name == found.settings.model_fields["kind"].default:
        raise SettingsError(f"{where} has different names in its entry point, its Kind and its settings")
    return found
