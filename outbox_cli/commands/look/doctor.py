"""``outbox doctor``: check for faults that are present or near."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from outbox_cli.terminal import exits
from outbox_cli.terminal.examples import examples
from outbox_cli.terminal.options import duration
from outbox_cli.terminal.output import Json, pasteable, print_json, say, stdout
from outbox_cli.terminal.settings import operator_settings
from relay.platform.wording import counted

if TYPE_CHECKING:
    from relay.admin.doctor import Finding

MARK = {"ok": ("ok", "green"), "note": ("note", "yellow"), "bad": ("BAD", "bold red")}


def register(app: typer.Typer, panel: str) -> None:
    app.command(
        rich_help_panel=panel,
        epilog=examples("outbox doctor", "outbox doctor --json | jq '.[] | select(.severity == \"bad\")'")
        + "\n\nExits with 0 if no finding is bad (notes do not count), with 4 if one is, "
        "and with 3 if the database cannot be used.",
    )(doctor)


def doctor(
    older_than: Annotated[
        float,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            show_default=False,
            help="The age from which a message is late; default: 5m.",
        ),
    ] = 300.0,
    as_json: Json = False,
) -> None:
    """Check for faults, present or near: database, pooler, settings, long transactions, relays, waiting messages."""
    from relay.admin.access.opening import reaching
    from relay.admin.doctor import examine

    settings = operator_settings()
    settings.require_database_file()
    with settings.database.short_engine() as engine, reaching(settings.database):
        found = examine(engine, lease_s=settings.lease_s, older_than_s=older_than) + _configured()
    if as_json:
        print_json(found)
    else:
        _print(found)
    if any(each.severity == "bad" for each in found):
        is_unusable = found[0].check == "schema" and found[0].severity == "bad"
        raise typer.Exit(exits.UNUSABLE if is_unusable else exits.UNHEALTHY)


def _configured() -> list[Finding]:
    """Check the destinations, if this host has what they need; another host may have it."""
    from outbox.errors import SettingsError
    from relay.admin.doctor.destinations import configured
    from relay.admin.doctor.finding import note
    from relay.settings import load

    try:
        return configured(load({}))
    except SettingsError as error:
        why, do = "the servers behind them were not checked", "run `outbox doctor` where a relay runs"
        return [note("destinations", f"they cannot be used here: {error}", why, do)]


def _print(found: list[Finding]) -> None:
    console = stdout()
    for each in found:
        word, style = MARK[each.severity]
        console.print(Text.assemble((f"{word:>4}", style), "  ", (each.check, "bold"), f": {each.what}"))
        if each.severity != "ok":
            console.print(f"        why: {each.why}")
            console.print(pasteable(f"        do:  {each.do}"))
    count = sum(each.severity == "bad" for each in found)
    say(
        f"{count} of {counted(len(found), 'finding')} {'is' if count == 1 else 'are'} bad"
        if count
        else "no bad finding"
    )
