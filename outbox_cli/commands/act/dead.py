"""``outbox dead``: list, show, retry and discard dead letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox_cli.commands.look.messages import print_message, uuid_of
from outbox_cli.terminal import exits
from outbox_cli.terminal.examples import examples
from outbox_cli.terminal.options import DryRun, Reason, Type, Yes
from outbox_cli.terminal.output import Json, print_json, print_json_array, say, stdout, table
from outbox_cli.terminal.prompts import counting, go_on, refuse_empty
from outbox_cli.terminal.settings import changing, reading
from outbox_cli.terminal.times import duration_s
from relay.platform.wording import counted

if TYPE_CHECKING:
    import sqlalchemy as sa

    from relay.admin.messages.dead import DeadFilter

MOST_IN_A_TABLE = 1000

dead = typer.Typer(help="List, show, retry and discard dead letters.", no_args_is_help=True)

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="The ids of messages.")]
Destination = Annotated[str | None, typer.Option(help="Only for this destination.")]
Older = Annotated[str | None, typer.Option("--older-than", metavar="DURATION", help="Dead for longer: 30m, 2d.")]
Newer = Annotated[str | None, typer.Option("--newer-than", metavar="DURATION", help="Dead for less: 30m, 2d.")]
Why = Annotated[str | None, typer.Option("--because", metavar="TEXT", help="Only with this text in the reason.")]
CauseOption = Annotated[str | None, typer.Option("--cause", help="Only of this cause, as `dead list` names it.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters, if no filter is given.")]


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
    because: Why = None,
    cause: CauseOption = None,
    each: Annotated[bool, typer.Option("--each", help="List each dead letter, the latest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The number of lines, with --each.")] = 100,
    as_json: Json = False,
) -> None:
    """List the causes of dead letters, with the count and the times of each."""
    from relay.admin.destinations.listing import refuse_unknown
    from relay.admin.messages.dead import causes, count_dead, dead_letters

    which = _filter((), destination, type_, older_than, newer_than, because, cause)
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
    if as_json:
        if not each:
            print_json(found)
    elif not found:
        say("there are no dead letters" + (" like that" if which.as_dict() else ""))
    else:
        stdout().print(_letters(found) if each else _causes(found))
    if each and count > shown:
        say(f"the latest {shown:,} of {count:,}: --limit shows more")


@dead.command(epilog=examples("outbox dead show 0197c0de-0000-7000-8000-000000000000"))
def show(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="The id of a message.")], as_json: Json = False
) -> None:
    """Show a dead letter: the message, and the time, outcome and answer of each attempt."""
    print_message(uuid_of(message_id), as_json=as_json)


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
    because: Why = None,
    cause: CauseOption = None,
    all_: All = False,
    dry_run: DryRun = False,
    reason: Reason = None,
) -> None:
    """Deliver dead letters after all: attempts count from zero, and they precede their keys' waiting successors."""
    from relay.admin.messages.dead import retry

    which = _filter(ids or (), destination, type_, older_than, newer_than, because, cause)
    _require_choice(which, all_=all_)
    _change("retry", which, lambda engine, tell: retry(engine, which, reason=reason, on_progress=tell), dry_run=dry_run)


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
    because: Why = None,
    cause: CauseOption = None,
    all_: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
) -> None:
    """Give up dead letters for good. The history keeps the messages, and their keys' successors are delivered."""
    from relay.admin.messages.dead import discard

    which = _filter(ids or (), destination, type_, older_than, newer_than, because, cause)
    _require_choice(which, all_=all_)
    _change(
        "discard",
        which,
        lambda engine, tell: discard(engine, which, reason=reason, on_progress=tell),
        dry_run=dry_run,
        ask="Discard {}, never to be delivered?",
        yes=yes,
    )


def _change(
    doing: str,
    which: DeadFilter,
    change: Callable[[sa.Engine, Callable[[int], object]], int],
    *,
    dry_run: bool,
    ask: str | None = None,
    yes: bool = False,
) -> None:
    from relay.admin.destinations.listing import refuse_unknown
    from relay.admin.messages.dead import causes

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
        go_on(doing, what, dry_run=dry_run, question=ask and ask.format(what), yes=yes)
        with counting(doing, count) as tell:
            done = change(engine, tell)
    say(f"{doing.rstrip('y')}{'ied' if doing.endswith('y') else 'ed'} {counted(done, 'dead letter')}")


def _require_choice(which: DeadFilter, *, all_: bool) -> None:
    if not which.as_dict() and not all_:
        raise typer.BadParameter("no dead letters are chosen: name ids or filters, or pass --all")


def _filter(
    ids: list[str] | tuple[()],
    destination: str | None,
    type_: str | None,
    older_than: str | None,
    newer_than: str | None,
    because: str | None,
    cause: str | None,
) -> DeadFilter:
    from relay.admin.messages.dead import DeadFilter

    refuse_empty({"--destination": destination, "--type": type_, "--because": because, "--cause": cause})
    return DeadFilter(
        ids=tuple(uuid_of(each) for each in ids),
        destination=destination,
        type_=type_,
        older_than_s=None if older_than is None else duration_s("--older-than", older_than),
        newer_than_s=None if newer_than is None else duration_s("--newer-than", newer_than),
        reason=because,
        fingerprint=cause,
    )


def _causes(found: list[Any]) -> Any:
    rows = ((c.fingerprint, c.destination, c.count, c.first_at, c.last_at, c.reason) for c in found)
    return table("Cause", "Destination", "Count", "First", "Last", "For example", rows=rows, right=["Count"])


def _letters(found: list[Any]) -> Any:
    rows = ((d.id, d.type, d.destination, d.ordering_key, d.attempts, d.died_at, d.reason) for d in found)
    return table("Id", "Type", "Destination", "Key", "Attempts", "Died", "Reason", rows=rows, right=["Attempts"])
