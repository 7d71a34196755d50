"""``outbox doctor``: check for faults that exist or will occur soon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import LOOK, app, examples
from outbox_cli.terminal.options import lasting
from outbox_cli.terminal.output import Json, pasteable, print_json, say, stdout
from outbox_cli.terminal.settings import operator_settings
from relay.platform.wording import counted

if TYPE_CHECKING:
    from relay.admin.doctor import Finding

LATE_S = 300.0
MARK = {"ok": ("ok", "green"), "note": ("note", "yellow"), "bad": ("BAD", "bold red")}


@app.command(
    rich_help_panel=LOOK,
    epilog=examples("outbox doctor", "outbox doctor --json | jq '.[] | select(.severity == \"bad\")'")
    + "\n\nExits with 0 if no finding is bad (notes do not count), with 4 if one is, "
    "and with 3 if the database cannot be used.",
)
def doctor(
    older_than: Annotated[float | None, lasting("The age from which a message is late; default: 5m.")] = None,
    as_json: Json = False,
) -> None:
    """Find faults, existing or coming: database, pooler, settings, long transactions, relays, waiting messages."""
    from relay.admin.access.opening import reaching
    from relay.admin.doctor import examine

    settings = operator_settings()
    settings.require_database_file()
    with settings.database.short_engine() as engine, reaching(settings.database):
        found = examine(engine, lease_s=settings.lease_s, older_than_s=older_than or LATE_S) + _configured()
    if as_json:
        print_json(found)
    else:
        _print(found)
    if any(each.severity == "bad" for each in found):
        is_unusable = found[0].check == "schema" and found[0].severity == "bad"
        raise typer.Exit(exits.UNUSABLE if is_unusable else exits.UNHEALTHY)


def _configured() -> list[Finding]:
    """Check the destinations, if this host has what they need; if not, another host may have it."""
    from outbox.errors import SettingsError
    from relay.admin.doctor.destinations import configured
    from relay.platform.finding import note
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
