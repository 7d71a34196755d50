"""``outbox replay``: send settled messages again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import ACT, app, examples
from outbox_cli.terminal.options import DryRun, Reason, Since, Until, Yes, uuid_of
from outbox_cli.terminal.output import Json, say, show, table
from outbox_cli.terminal.prompts import carry_out
from outbox_cli.terminal.settings import changing
from relay.platform.wording import counted

if TYPE_CHECKING:
    from relay.admin.messages.replay import Found


NONE_SETTLED = "there is no such message in the history; `outbox messages show ID` says where one is"


@app.command(
    rich_help_panel=ACT,
    epilog=examples(
        "outbox replay 0197c0de-0000-7000-8000-000000000000 --to reports",
        "outbox replay --to reports --since 7d --dry-run",
        "outbox replay --to reports --type 'extraction.*' --since 2026-03-01 --until 2026-03-02T12:00",
        "outbox replay --to api --since 2h --as-new --rate 50  # for a receiver that would ignore known ids",
    ),
)
def replay(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID", parser=uuid_of, help="Send exactly these messages, even if they were discarded or cancelled."
        ),
    ] = None,
    *,
    to: Annotated[str, typer.Option(metavar="DESTINATION", help="The registered destination to send to.")],
    type_: Annotated[str, typer.Option("--type", help="Only this event type; * stands for any text.")] = "*",
    since: Since = None,
    until: Until = None,
    as_new: Annotated[
        bool,
        typer.Option(
            "--as-new",
            help="Give them new ids and the header outbox-replay-of, so that receivers process them once more.",
        ),
    ] = False,
    rate: Annotated[float, typer.Option(min=0.1, help="Messages per second, at most.")] = 200,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Send settled messages again to one destination that is new or has lost them."""
    from relay.admin.messages.replay import Replay, look, replay

    what = Replay(to, type_, since, until, as_new, tuple(ids or ()))
    with changing() as engine:
        with engine.connect() as connection:
            found = look(connection, what)
        count = sum(each.count for each in found)
        show(found, lambda: _table(found), as_json=as_json)
        if not count:
            say(NONE_SETTLED)
            raise typer.Exit(exits.FAILED if what.ids else exits.OK)
        _explain(found, what.to, as_new=as_new)
        what_ = counted(count, "message")
        question = None if yes else f"Replay {what_} to {to}?"
        change = partial(replay, engine, what, rate=rate, reason=reason)
        done = carry_out("replay", what_, count, change, dry_run=dry_run, question=question)
    say(
        f"queued {counted(done, 'message')} for {to}"
        + (f"; {count - done:,} were already queued" if done < count else "")
    )


def _explain(found: list[Found], to: str, *, as_new: bool) -> None:
    marked = sum(each.marked for each in found)
    if as_new:
        say("each becomes a new message with a new id: a receiver that had the old message takes it again")
    elif marked:
        say(
            f"{marked:,} of them are marked as processed in the inbox of {to}: it will not run for those again, unless "
            "--as-new"
        )
    else:
        say("the ids stay the same: a receiver that deduplicates ignores messages that it already had, unless --as-new")


def _table(found: list[Found]) -> object:
    rows = ((each.type, each.count, each.first_at, each.last_at, each.marked) for each in found)
    columns = ("Type", "Messages", "First settled", "Last settled", "In the inbox")
    return table(*columns, rows=rows, right=["Messages", "In the inbox"])
