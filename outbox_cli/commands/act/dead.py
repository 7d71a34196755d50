"""``outbox dead``: list, show, retry and discard dead letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox_cli.commands.look.messages import print_message
from outbox_cli.terminal import exits
from outbox_cli.terminal.examples import examples
from outbox_cli.terminal.options import All, DryRun, Ids, Reason, Type, Yes, duration, text, uuid_of
from outbox_cli.terminal.output import Json, print_json_array, say, show, stdout, table
from outbox_cli.terminal.prompts import counting, go_on
from outbox_cli.terminal.settings import changing, reading
from relay.platform.wording import counted

if TYPE_CHECKING:
    from relay.admin.messages.dead import DeadFilter

MOST_IN_A_TABLE = 1000

dead = typer.Typer(help="List, show, retry and discard dead letters.", no_args_is_help=True)

Destination = Annotated[str | None, typer.Option(parser=text, help="Only for this destination.")]
Older = Annotated[
    float | None,
    typer.Option("--older-than", parser=duration, metavar="DURATION", help="Dead for longer: 30m, 2d."),
]
Newer = Annotated[
    float | None, typer.Option("--newer-than", parser=duration, metavar="DURATION", help="Dead for less: 30m, 2d.")
]
Because = Annotated[str | None, typer.Option(parser=text, help="Only with this text in the reason.")]
CauseOption = Annotated[
    str | None, typer.Option("--cause", parser=text, help="Only of this cause, as `dead list` names it.")
]


def register(app: typer.Typer, panel: str) -> None:
    app.add_typer(dead, name="dead", rich_help_panel=panel)


@dead.command(
    "list",
    epilog=examples(
        "outbox dead list  # one line for each cause",
        "outbox dead list --destination api --newer-than 1h",
        "outbox dead list --each --cause 3f2a --json | jq -r '.[].id'",
    ),
)
def list_(
    destination: Destination = None,
    type_: Type = None,
    older_than: Older = None,
    newer_than: Newer = None,
    because: Because = None,
    cause: CauseOption = None,
    each: Annotated[bool, typer.Option("--each", help="List each dead letter, the latest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The number of lines, with --each.")] = 100,
    as_json: Json = False,
) -> None:
    """List the causes of dead letters, with the count and the times of each."""
    from relay.admin.destinations.listing import refuse_unknown
    from relay.admin.messages.dead import DeadFilter, causes, count_dead, dead_letters

    which = DeadFilter((), destination, type_, older_than, newer_than, because, cause)
    if each and not as_json and limit > MOST_IN_A_TABLE:
        raise typer.BadParameter(f"a table has at most {MOST_IN_A_TABLE:,} lines: use --json for more")
    with reading() as connection:
        count = count_dead(connection, which)
        if not count and not as_json:
            refuse_unknown(connection, destination)
        if each and as_json:
            shown = print_json_array(dead_letters(connection, which, limit=limit))
        else:
            found: list[Any] = [*(dead_letters(connection, which, limit=limit) if each else causes(connection, which))]
            shown = len(found)
    if not (each and as_json):
        nothing = "there are no dead letters" + (" like that" if which.as_dict() else "")
        show(found, lambda: _letters(found) if each else _causes(found), as_json=as_json, otherwise=nothing)
    if each and count > shown:
        say(f"the latest {shown:,} of {count:,}: --limit shows more")


@dead.command("show", epilog=examples("outbox dead show 0197c0de-0000-7000-8000-000000000000"))
def show_(
    message_id: Annotated[str, typer.Argument(metavar="ID", parser=uuid_of, help="The id of a message.")],
    as_json: Json = False,
) -> None:
    """Show a dead letter: the message, and the time, outcome and answer of each attempt."""
    print_message(message_id, as_json=as_json)


@dead.command(
    epilog=examples(
        "outbox dead retry 0197c0de-0000-7000-8000-000000000000",
        "outbox dead retry --destination api --newer-than 1d --dry-run",
        "outbox dead retry --cause 3f2a --reason 'the schema is fixed'",
        "outbox dead retry --all",
    )
)
def retry(
    ids: Ids = None,
    destination: Destination = None,
    type_: Type = None,
    older_than: Older = None,
    newer_than: Newer = None,
    because: Because = None,
    cause: CauseOption = None,
    all_: All = False,
    dry_run: DryRun = False,
    reason: Reason = None,
) -> None:
    """Deliver dead letters after all: attempts count from zero, and they precede their keys' waiting successors."""
    from relay.admin.messages.dead import DeadFilter, retry

    which = DeadFilter(tuple(ids or ()), destination, type_, older_than, newer_than, because, cause)
    _change("retry", "retried", retry, which, all_=all_, dry_run=dry_run, reason=reason)


@dead.command(
    epilog=examples(
        "outbox dead discard 0197c0de-0000-7000-8000-000000000000",
        "outbox dead discard --older-than 30d --dry-run",
        "outbox dead discard --cause 3f2a --yes --reason 'tests of last week'",
    )
)
def discard(
    ids: Ids = None,
    destination: Destination = None,
    type_: Type = None,
    older_than: Older = None,
    newer_than: Newer = None,
    because: Because = None,
    cause: CauseOption = None,
    all_: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
) -> None:
    """Give up dead letters for good. The history keeps the messages, and their keys' successors are delivered."""
    from relay.admin.messages.dead import DeadFilter, discard

    which = DeadFilter(tuple(ids or ()), destination, type_, older_than, newer_than, because, cause)
    ask = None if yes else "Discard {}, never to be delivered?"
    _change("discard", "discarded", discard, which, all_=all_, dry_run=dry_run, reason=reason, ask=ask)


def _change(
    doing: str,
    done: str,
    change: Callable[..., int],
    which: DeadFilter,
    *,
    all_: bool,
    dry_run: bool,
    reason: str | None,
    ask: str | None = None,
) -> None:
    from relay.admin.destinations.listing import refuse_unknown
    from relay.admin.messages.dead import causes

    if not which.as_dict() and not all_:
        raise typer.BadParameter("no dead letters are chosen: name ids or filters, or pass --all")
    with changing() as engine:
        with engine.connect() as connection:
            found = causes(connection, which)
            if not found:
                refuse_unknown(connection, which.destination)
        count = sum(cause.count for cause in found)
        if not count:
            say("nothing to do: there are no dead letters" + (" like that" if which.as_dict() else ""))
            raise typer.Exit(exits.FAILED if which.ids else exits.OK)
        if dry_run:
            stdout().print(_causes(found))
        what = counted(count, "dead letter")
        go_on(doing, what, dry_run=dry_run, question=ask and ask.format(what))
        with counting(doing, count) as tell:
            changed = change(engine, which, reason=reason, on_progress=tell)
    say(f"{done} {counted(changed, 'dead letter')}")


def _causes(found: list[Any]) -> Any:
    rows = ((c.fingerprint, c.destination, c.count, c.first_at, c.last_at, c.reason) for c in found)
    return table("Cause", "Destination", "Count", "First", "Last", "For example", rows=rows, right=["Count"])


def _letters(found: list[Any]) -> Any:
    rows = ((d.id, d.type, d.destination, d.ordering_key, d.attempts, d.died_at, d.reason) for d in found)
    return table("Id", "Type", "Destination", "Key", "Attempts", "Died", "Reason", rows=rows, right=["Attempts"])
