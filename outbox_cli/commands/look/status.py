"""``outbox status`` and ``outbox relays``: the state of the outbox and of its relays."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import LOOK, app, examples
from outbox_cli.terminal.options import lasting
from outbox_cli.terminal.output import Json, pasteable, print_json, say, show, stdout, table
from outbox_cli.terminal.settings import operator_settings, reading
from relay.platform.wording import duration, ranges

if TYPE_CHECKING:
    from relay.admin.relays import RelayStatus
    from relay.admin.status import Status
    from relay.settings import Settings

NO_RELAY = "No relay is alive: start one with `outbox relay`. If one runs, `outbox doctor` finds what stops it."


@app.command(
    rich_help_panel=LOOK,
    epilog=examples(
        "outbox status",
        "outbox status --watch",
        "outbox status --json | jq .waiting",
        "outbox status --fail-if-older 5m  # a health check: exit code 4 if a message waits longer",
    ),
)
def status(
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two updates, with --watch.")] = 2.0,
    fail_if_older: Annotated[float | None, lasting("Exit with 4 if a message waits longer: 30s, 5m, 1h.")] = None,
) -> None:
    """Show counts of messages, the state of the destinations, and the owners of the shards."""
    if watch and fail_if_older is not None:
        raise typer.BadParameter("--watch never ends, so it cannot fail: leave out --fail-if-older")
    settings = operator_settings()
    if watch:
        _watch(settings, interval, as_json=as_json)
        return
    found = _look(settings)
    if as_json:
        print_json(found)
    else:
        stdout().print(render(found, str(settings.database)))
    if fail_if_older is not None and (found.oldest_waiting_s or 0) > fail_if_older:
        longer_than = f"longer than {duration(fail_if_older)}"
        say(f"the oldest message has been waiting for {duration(found.oldest_waiting_s)}, {longer_than}")
        raise typer.Exit(exits.UNHEALTHY)


@app.command(rich_help_panel=LOOK, epilog=examples("outbox relays", "outbox relays --json"))
def relays(as_json: Json = False) -> None:
    """Show the relays that are alive and the shards they own."""
    from relay.admin.relays import live_relays

    with reading() as connection:
        found = live_relays(connection)
    show(found, lambda: _relay_table(found), as_json=as_json, otherwise=NO_RELAY)


def render(found: Status, database: str) -> RenderableType:
    """Return the status for people."""
    parts: list[RenderableType] = [Text(database, style="bold"), "", _message_table(found), ""]
    if found.destinations:
        parts += [_destination_table(found), ""]
    parts.append(_relay_table(found.relays) if found.relays else Text(pasteable(NO_RELAY)))
    return Group(*parts)


def _look(settings: Settings) -> Status:
    from relay.admin.access.opening import opened_snapshot
    from relay.admin.status import status

    with opened_snapshot(settings) as connection:
        return status(connection)


def _watch(settings: Settings, interval_s: float, *, as_json: bool) -> None:
    console = stdout()
    if as_json:
        _repeat(interval_s, lambda: print_json(_look(settings), indent=None))
    elif console.is_terminal:
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as live:
            _repeat(interval_s, lambda: live.update(render(_look(settings), str(settings.database)), refresh=True))
    else:
        _repeat(interval_s, lambda: console.print(render(_look(settings), str(settings.database)), "", sep="\n"))


def _repeat(interval_s: float, show: Callable[[], None]) -> NoReturn:
    """Repeat the output; if the database cannot be reached for a while, report that and wait for it."""
    from outbox.errors import Unusable

    while True:
        try:
            show()
        except Unusable as error:
            say(str(error))
        time.sleep(interval_s)


def _message_table(found: Status) -> RenderableType:
    about, about_history = ("~" if each else "" for each in (found.is_estimate, found.delivered_is_estimate))
    rows = [
        ("waiting", f"{about}{found.waiting:,}", _waiting_note(found)),
        ("unrouted", f"{about}{found.unrouted:,}", "no subscription wants them" if found.unrouted else ""),
        ("dead", f"{about}{found.dead:,}", _dead_note(found)),
        ("delivered", f"{about_history}{found.delivered:,}", "in the history"),
        ("discarded", f"{found.discarded:,}", "given up by an operator" if found.discarded else ""),
        ("cancelled", f"{found.cancelled:,}", "taken back by an operator" if found.cancelled else ""),
        ("expired", f"{found.expired:,}", "their time had passed before they were sent" if found.expired else ""),
    ]
    made = table("Messages", "Count", "", right=["Count"])
    for name, count, note in rows:
        made.add_row(name, count, Text(note, style="dim"))
    return made


def _waiting_note(found: Status) -> str:
    notes = []
    if found.oldest_waiting_s is not None:
        notes.append(f"the oldest for {duration(found.oldest_waiting_s)}")
    if found.scheduled:
        notes.append(f"{found.scheduled:,} not due yet")
    return "; ".join(notes)


def _dead_note(found: Status) -> str:
    if not found.dead:
        return ""
    note = "given up by a destination: an operator has to act"
    if count := found.waiting_and_dead:
        note += f"; {count:,} of them still {'waits' if count == 1 else 'wait'} for another destination"
    return note


def _destination_table(found: Status) -> RenderableType:
    rows = (
        (name, d.health, d.waiting, d.parked, d.blocked, d.retrying, d.dead, d.reason)
        for name, d in found.destinations.items()
    )
    numbers = ("Waiting", "parked", "blocked", "retrying", "Dead")
    return table("Destination", "State", *numbers, "Reason", rows=rows, right=numbers)


def _relay_table(found: list[RelayStatus]) -> RenderableType:
    rows = ((r.id, len(r.shards), ranges(r.shards), f"{duration(r.last_seen_s)} ago", r.release) for r in found)
    return table("Relay", "Shards", "Which", "Last seen", "Release", rows=rows, right=["Shards"])
