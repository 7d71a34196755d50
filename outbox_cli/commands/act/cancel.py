"""``outbox cancel``: take messages back before they are sent."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from outbox_cli.commands.look.messages import MEANING
from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import ACT, app, examples
from outbox_cli.terminal.options import All, Destination, DryRun, Ids, Key, Reason, Since, Subject, Type, Until, Yes
from outbox_cli.terminal.output import Json, say, show, table
from outbox_cli.terminal.prompts import carry_out
from outbox_cli.terminal.settings import changing
from relay.platform.wording import counted

if TYPE_CHECKING:
    from relay.admin.messages.cancel import Cancellable


@app.command(
    rich_help_panel=ACT,
    epilog=examples(
        "outbox cancel 0197c0de-0000-7000-8000-000000000000",
        "outbox cancel --key c-1 --reason 'the order was withdrawn'",
        "outbox cancel --type 'debug.*' --since 1h --dry-run",
        "outbox cancel --unrouted --yes  # messages that no subscription wants",
        "outbox cancel --destination old --yes  # messages that wait for a destination that no longer exists",
    ),
)
def cancel(
    ids: Ids = None,
    key: Key = None,
    type_: Type = None,
    subject: Subject = None,
    destination: Destination = None,
    since: Since = None,
    until: Until = None,
    unrouted: Annotated[bool, typer.Option("--unrouted", help="Only messages that no subscription wants.")] = False,
    all_: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Cancel deliveries that are still to be made: waiting, not yet due, parked, blocked or waiting for a retry.

    A taken delivery stays delivered, and a dead letter stays dead.
    A destination may still take an attempt that is under way; then the message is
    delivered. The successors of a cancelled message's key are delivered, too.
    """
    from relay.admin.destinations.listing import refuse_unknown
    from relay.admin.messages.cancel import cancel, cancellable
    from relay.admin.messages.choice import Choice

    which = Choice(tuple(ids or ()), key, type_, subject, destination, since, until, unrouted)
    if not which.as_dict() and not all_:
        raise typer.BadParameter("no messages are chosen: name ids or filters, or pass --all")
    if unrouted and destination is not None:
        raise typer.BadParameter("messages that no subscription wants have no destination: leave out --destination")
    with changing() as engine:
        with engine.connect() as connection:
            found = cancellable(connection, which)
            if not found:
                refuse_unknown(connection, destination)
        count = sum(each.count for each in found)
        show(found, lambda: _table(found), as_json=as_json)
        if len(which.ids) > count:
            say("some of these messages no longer wait to be delivered: `outbox messages show ID` says where one is")
        if not count:
            say("nothing to do: no such message waits to be delivered")
            raise typer.Exit(exits.FAILED if which.ids else exits.OK)
        what = counted(count, "message")
        whose = f" for {destination}" if destination else ""
        question = None if yes else f"Cancel {what}{whose}, never to be delivered?"
        change = partial(cancel, engine, which, reason=reason)
        done = carry_out("cancel", what, count, change, dry_run=dry_run, question=question)
    say(f"cancelled {counted(done, 'message')}{whose}")


def _table(found: list[Cancellable]) -> object:
    rows = ((each.type, each.state, MEANING[each.state], each.count) for each in found)
    return table("Type", "State", "", "Messages", rows=rows, right=["Messages"])
