"""``outbox dead``: list, show, retry and discard dead letters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox_cli.commands.look.messages import print_message
from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import ACT, examples, group
from outbox_cli.terminal.options import All, Destination, DryRun, Ids, Limit, Reason, Type, Yes, lasting, text, uuid_of
from outbox_cli.terminal.output import Json, say, show, stdout, table
from outbox_cli.terminal.prompts import carry_out
from outbox_cli.terminal.settings import changing, reading
from relay.platform.wording import counted

if TYPE_CHECKING:
    from relay.admin.messages.dead import DeadFilter

dead = group("dead", ACT, "List, show, retry and discard dead letters.")

Older = Annotated[float | None, lasting("Only those that died longer ago than this: 30m, 2d.", "--older-than")]
Newer = Annotated[float | None, lasting("Only those that died within this time: 30m, 2d.", "--newer-than")]
Because = Annotated[str | None, typer.Option(parser=text, help="Only those with this text in the reason.")]
CauseOption = Annotated[
    str | None, typer.Option("--cause", parser=text, help="Only those with this cause, as `dead list` names it.")
]


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
    limit: Limit = 100,
    as_json: Json = False,
) -> None:
    """List the causes of dead letters, with the count and times of each cause."""
    from relay.admin.destinations.listing import refuse_unknown
    from relay.admin.messages.dead import DeadFilter, causes, count_dead, dead_letters

    which = DeadFilter((), destination, type_, older_than, newer_than, because, cause)
    with reading() as connection:
        count = count_dead(connection, which)
        if not count and not as_json:
            refuse_unknown(connection, destination)
        found: list[Any] = [*(dead_letters(connection, which, limit=limit) if each else causes(connection, which))]
    nothing = "there are no dead letters" + (" like that" if which.as_dict() else "")
    show(found, lambda: _letters(found) if each else _causes(found), as_json=as_json, otherwise=nothing)
    if each and count > len(found):
        say(f"the latest {len(found):,} of {count:,}: --limit shows more")


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
    """Deliver dead letters again. Attempts count from zero, and they go before the messages that wait behind them."""
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
    """Give up dead letters for good. The history keeps them, and the messages that wait behind them are delivered."""
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
        question = ask and ask.format(what)
        changed = carry_out(
            doing, what, count, partial(change, engine, which, reason=reason), dry_run=dry_run, question=question
        )
    say(f"{done} {counted(changed, 'dead letter')}")


def _causes(found: list[Any]) -> Any:
    rows = ((c.fingerprint, c.destination, c.count, c.first_at, c.last_at, c.reason) for c in found)
    return table("Cause", "Destination", "Count", "First", "Last", "For example", rows=rows, right=["Count"])


def _letters(found: list[Any]) -> Any:
    rows = ((d.id, d.type, d.destination, d.ordering_key, d.attempts, d.died_at, d.reason) for d in found)
    return table("Id", "Type", "Destination", "Key", "Attempts", "Died", "Reason", rows=rows, right=["Attempts"])
