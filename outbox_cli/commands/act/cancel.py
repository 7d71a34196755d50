"""``outbox cancel``: take messages back before they are sent."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from outbox_cli.commands.look.messages import MEANING
from outbox_cli.terminal import exits
from outbox_cli.terminal.examples import examples
from outbox_cli.terminal.options import All, DryRun, Ids, Key, Reason, Subject, Type, Yes, past, text
from outbox_cli.terminal.output import say, show, table
from outbox_cli.terminal.prompts import counting, go_on
from outbox_cli.terminal.settings import changing
from relay.decide.verdict import State
from relay.platform.wording import counted

if TYPE_CHECKING:
    import sqlalchemy as sa

    from relay.admin.messages.cancel import Cancellable

EXPLAINED = 10  # the maximum number of ids for which the command explains why they cannot be cancelled


def register(app: typer.Typer, panel: str) -> None:
    app.command(
        rich_help_panel=panel,
        epilog=examples(
            "outbox cancel 0197c0de-0000-7000-8000-000000000000",
            "outbox cancel --key c-1 --reason 'the order was withdrawn'",
            "outbox cancel --type 'debug.*' --since 1h --dry-run",
            "outbox cancel --unrouted --yes  # messages that no subscription wants",
            "outbox cancel --destination old --yes  # messages that wait for a destination that is gone",
        ),
    )(cancel)


def cancel(
    ids: Ids = None,
    key: Key = None,
    type_: Type = None,
    subject: Subject = None,
    destination: Annotated[
        str | None, typer.Option(parser=text, help="Only for this destination; the others still get the messages.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=past, metavar="WHEN", help="Created since then: 2h, 7d, 2026-03-01, 2026-03-01T12:30Z."),
    ] = None,
    until: Annotated[datetime | None, typer.Option(parser=past, metavar="WHEN", help="Created before then.")] = None,
    unrouted: Annotated[bool, typer.Option("--unrouted", help="That no subscription wants.")] = False,
    all_: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cancelled messages as JSON, for scripts.")] = False,
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
            _explain(engine, which.ids)
        if not count:
            say("nothing to do: no such message is still to be delivered")
            raise typer.Exit(exits.FAILED if which.ids else exits.OK)
        what = counted(count, "message")
        whose = f" for {destination}" if destination else ""
        question = f"Cancel {what}{whose}, never to be delivered?"
        go_on("cancel", what, dry_run=dry_run, question=None if yes else question)
        with counting("cancel", count) as tell:
            done = cancel(engine, which, reason=reason, on_progress=tell)
    say(f"cancelled {counted(done, 'message')}{whose}")


def _table(found: list[Cancellable]) -> object:
    rows = ((each.type, each.state, MEANING[each.state], each.count) for each in found)
    return table("Type", "State", "", "Messages", rows=rows, right=["Messages"])


def _explain(engine: sa.Engine, ids: tuple[str, ...]) -> None:
    """Say why these ids cannot be cancelled."""
    from relay.admin.access.queries import snapshot
    from relay.admin.messages.detail import show_message
    from relay.admin.messages.outcomes import OUTCOMES

    with snapshot(engine) as connection:
        for message_id in ids[:EXPLAINED]:
            detail = show_message(connection, message_id)
            if detail is None:
                say(f"{message_id}: there is no such message")
            elif detail.message.state in OUTCOMES:
                say(f"{message_id}: {detail.message.state}: {MEANING[detail.message.state]}")
            elif dead := [each.destination for each in detail.deliveries if each.state == State.DEAD]:
                say(f"{message_id}: dead at {', '.join(dead)}: `outbox dead discard {message_id}` gives it up")
