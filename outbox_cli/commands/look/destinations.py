"""``outbox destinations``, ``pause`` and ``resume``: list, test, pause and resume destinations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import ACT, LOOK, app, examples, group
from outbox_cli.terminal.output import Json, say, show, table
from outbox_cli.terminal.settings import changing, put_current_directory_on_path, reading

if TYPE_CHECKING:
    from relay.admin.status import DestinationStatus

destinations = group("destinations", LOOK, "List destinations, and test them.")

Name = Annotated[str, typer.Argument(metavar="DESTINATION", help="A registered destination.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why: `destinations list` and `outbox audit` show it.")]


@destinations.command("list", epilog=examples("outbox destinations list", "outbox destinations list --json"))
def list_(as_json: Json = False) -> None:
    """List the registered destinations: state, reason, next probe, and waiting messages."""
    from relay.admin.destinations.listing import list_destinations

    with reading() as connection:
        found = list_destinations(connection)
    nothing = "no destination is registered: `outbox relay` registers the configured ones"
    show(found, lambda: _table(found), as_json=as_json, otherwise=nothing)


@destinations.command(epilog=examples("outbox destinations test api"))
def test(
    name: Annotated[str, typer.Argument(metavar="DESTINATION", help="A configured destination.")],
) -> None:
    """Test whether a destination can be reached with the settings of this host. No message is sent."""
    import asyncio

    from relay.admin.destinations.probe import probe
    from relay.settings import load

    settings = load({})
    put_current_directory_on_path()
    if name not in settings.destinations:
        known = ", ".join(sorted(settings.destinations)) or "none"
        raise typer.BadParameter(f"no destination {name} is configured here; configured: {known}")
    found = asyncio.run(probe(name, settings))
    say(f"{name}: {found.said}")
    say(f"checked: {found.checked}")
    if not found.well:
        raise typer.Exit(exits.UNHEALTHY)


@app.command(rich_help_panel=ACT, epilog=examples("outbox pause api --reason 'a release, until noon'"))
def pause(name: Name, reason: Reason = None) -> None:
    """Pause a destination: within a second, relays start no more attempts there. Its messages wait."""
    from relay.admin.destinations.listing import pause

    with changing() as engine:
        pause(engine, name, reason=reason)
    say(f"{name} is paused: nothing is sent there until `outbox resume {name}`")


@app.command(rich_help_panel=ACT, epilog=examples("outbox resume api"))
def resume(name: Name, reason: Reason = None) -> None:
    """Make all relays try a destination again, after a pause or a switch-off."""
    from relay.admin.destinations.listing import resume

    with changing() as engine:
        resume(engine, name, reason=reason)
    say(f"{name} is resumed: the relays try it within a second")


def _table(found: list[DestinationStatus]) -> object:
    rows = ((d.name, d.kind, d.health, d.waiting, d.dead, ", ".join(d.events), d.on_dead, d.reason) for d in found)
    columns = ("Destination", "Kind", "State", "Waiting", "Dead", "Events", "On dead", "Reason")
    return table(*columns, rows=rows, right=["Waiting", "Dead"])
