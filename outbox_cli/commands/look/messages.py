"""``outbox messages``: list and show messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import LOOK, examples, group
from outbox_cli.terminal.options import Key, Limit, Since, Subject, Type, Until, text, uuid_of
from outbox_cli.terminal.output import Json, pasteable, print_json, say, stdout, table
from outbox_cli.terminal.settings import operator_settings, reading
from relay.decide.verdict import State

if TYPE_CHECKING:
    from relay.admin.messages.detail import MessageDetail
    from relay.admin.messages.listing import MessageRow

messages = group("messages", LOOK, "List and show messages.")


MEANING: dict[str, str] = {
    State.READY: "not delivered yet",
    State.SCHEDULED: "not due yet",
    State.HELD: "a delivery waits or is dead: see below",
    State.UNROUTED: "no subscription wants it; it is delivered when one does",
    State.DELIVERED: "a destination took it, and all its deliveries are done",
    State.DISCARDED: "an operator gave it up; no destination took it",
    State.CANCELLED: "an operator cancelled it; no destination took it",
    State.EXPIRED: "its time had passed before it was sent; no destination took it",
}


@messages.command(
    "list",
    epilog=examples(
        "outbox messages list",
        "outbox messages list --state delivered --limit 5",
        "outbox messages list --key c-1",
        "outbox messages list --destination api --state retry",
        "outbox messages list --state cancelled --since 1d",
        "outbox messages list --type 'extraction.*' --json | jq -r '.[].id'",
    ),
)
def list_(
    state: Annotated[
        State | None, typer.Option(help="The state of the message or a delivery. Default: everything not settled yet.")
    ] = None,
    type_: Type = None,
    key: Key = None,
    subject: Subject = None,
    destination: Annotated[
        str | None,
        typer.Option(
            parser=text, help="Only messages that wait for this destination; with --state: in that state there."
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List messages, newest first. For settled ones: --state delivered, discarded, cancelled or expired."""
    from relay.admin.destinations.listing import refuse_unknown
    from relay.admin.messages.choice import Choice
    from relay.admin.messages.listing import list_messages

    which = Choice((), key, type_, subject, destination, since, until)
    with reading() as connection:
        found = list_messages(connection, which, state=state and state.value, limit=limit)
        if not found and not as_json:
            refuse_unknown(connection, destination)
    if as_json:
        print_json(found)
        return
    if not found:
        say("there is no such message" if state or which.as_dict() else "no message waits")
        return
    rows = ((m.id, m.type, _state(m), m.ordering_key, m.created_at, m.settled_at or m.due_at) for m in found)
    stdout().print(table("Id", "Type", "State", "Key", "Created", "Due or settled", rows=rows))
    if len(found) == limit:
        say(f"the newest {limit}; --limit shows more")


@messages.command("show", epilog=examples("outbox messages show 0197c0de-0000-7000-8000-000000000000"))
def show(
    message_id: Annotated[str, typer.Argument(metavar="ID", parser=uuid_of, help="The id that emit returned.")],
    as_json: Json = False,
) -> None:
    """Show one message: where it is, what happened to it, and what happens next."""
    print_message(message_id, as_json=as_json)


def print_message(message_id: str, *, as_json: bool) -> None:
    """Print all information about one message, for `messages show` and `dead show`."""
    from relay.admin.access.opening import opened_snapshot
    from relay.admin.messages.detail import show_message
    from relay.admin.messages.redaction import Redaction

    settings = operator_settings()
    with opened_snapshot(settings) as connection:
        found = show_message(connection, message_id)
    if found is None:
        place = settings.database.place
        say(f"{place} has no message {message_id}: its transaction was rolled back, or it is no longer in the history")
        raise typer.Exit(exits.FAILED)
    found = Redaction(settings.redact).detail(found)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _state(message: MessageRow) -> str:
    from relay.admin.messages.outcomes import NOBODY

    apart = ", ".join(f"{name} {state}" for name, state in sorted(message.deliveries.items()) if name != NOBODY)
    return f"{message.state} ({apart})" if apart else message.state


def _print(found: MessageDetail) -> None:
    from relay.admin.messages.life import timeline

    console = stdout()
    shown = table("", "", rows=((name, value) for name, value in _facts(found).items() if value is not None))
    shown.show_header = False
    console.print(shown)
    console.print()
    rows = ((each.at, each.title, pasteable(each.detail), each.answer) for each in timeline(found))
    console.print(table("When", "What", "Why", "Answer", rows=rows))


def _facts(found: MessageDetail) -> dict[str, object]:
    message = found.message
    return {
        "id": message.id,
        "type": message.type,
        "state": f"{message.state}: {MEANING[message.state]}",
        "source": found.source,
        "subject": message.subject,
        "ordering key": message.ordering_key,
        "created": message.created_at,
        "due": message.due_at,
        message.state if message.settled_at else "settled": message.settled_at,
        "attempts": found.attempts,
        "shard": found.shard if found.owner is None else f"{found.shard}, owned by {found.owner}",
        "headers": json.dumps(found.headers, ensure_ascii=False) if found.headers else None,
        "data": json.dumps(found.data, ensure_ascii=False),
    }
