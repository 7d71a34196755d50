"""``outbox messages``: list and show messages."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.examples import examples
from outbox_cli.terminal.options import Key, Subject, past, text, uuid_of
from outbox_cli.terminal.output import Json, cell, pasteable, print_json, say, stdout, table
from outbox_cli.terminal.settings import operator_settings, reading
from relay.decide.verdict import State

if TYPE_CHECKING:
    from rich.table import Table

    from relay.admin.messages.detail import DeliveryRow, MessageDetail
    from relay.admin.messages.listing import MessageRow

messages = typer.Typer(help="List and show messages.", no_args_is_help=True)


MEANING: dict[str, str] = {
    State.READY: "being delivered, or about to be",
    State.SCHEDULED: "not due yet",
    State.HELD: "waits for the reason that its deliveries show",
    State.UNROUTED: "no subscription wants it; it is delivered when one does",
    State.DELIVERED: "a destination took it, and all its deliveries are done",
    State.DISCARDED: "an operator gave it up; no destination took it",
    State.CANCELLED: "an operator cancelled it; no destination took it",
    State.EXPIRED: "its time had passed before it was sent; no destination took it",
}


def register(app: typer.Typer, panel: str) -> None:
    app.add_typer(messages, name="messages", rich_help_panel=panel)


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
    type_: Annotated[
        str | None,
        typer.Option(
            "--type", parser=text, help="An event type; * stands for any text. For a rare one, all messages are read."
        ),
    ] = None,
    key: Key = None,
    subject: Subject = None,
    destination: Annotated[
        str | None, typer.Option(parser=text, help="Still to be delivered there; with --state: in that state there.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=past, metavar="WHEN", help="Created or settled since then: 2h, 7d, 2026-03-01, 2026-03-01T12:30Z."
        ),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=past, metavar="WHEN", help="Created or settled before then.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The number of lines, the newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List messages, the newest first. Settled ones: --state delivered, discarded, cancelled or expired."""
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
        say(f"there is no message {message_id}: it does not wait, and the history does not have it, or no longer")
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
    from relay.admin.messages.outcomes import NOBODY

    console = stdout()
    shown = table("", "", rows=((name, value) for name, value in _facts(found).items() if value is not None))
    shown.show_header = False
    console.print(shown)
    if any(each.destination != NOBODY for each in found.deliveries):
        console.print()
        console.print(_settled(found.deliveries) if found.message.settled_at else _open(found.deliveries))
    if found.before:
        console.print()
        console.print("Before it was sent again:")
        console.print(_settled(found.before))
    for delivery in found.deliveries:
        if delivery.log:
            console.print()
            console.print(f"Attempts at {cell(delivery.destination)}:")
            console.print(_log(delivery))


def _open(deliveries: list[DeliveryRow]) -> Table:
    """Return a table of what each delivery waits for."""
    rows = ((d.destination, d.state, d.attempts, d.due_at, d.reason, _next(d)) for d in deliveries)
    columns = ("Destination", "State", "Attempts", "Due", "Reason", "Next")
    return table(*columns, rows=rows, right=["Attempts"])


def _next(delivery: DeliveryRow) -> str:
    if delivery.taken_at_attempt is not None:
        return f"nothing: taken at {cell(delivery.changed_at)}, at attempt {delivery.taken_at_attempt}"
    return pasteable(delivery.next or "")


def _settled(deliveries: list[DeliveryRow]) -> Table:
    """Return a table of the destinations that took it, with time and attempt; and of the others, with the reason."""
    rows = ((d.destination, d.state, d.changed_at, d.taken_at_attempt or d.attempts, d.reason) for d in deliveries)
    return table("Destination", "State", "When", "Attempts", "Reason", rows=rows, right=["Attempts"])


def _facts(found: MessageDetail) -> dict[str, object]:
    message = found.message
    again = found.settled if message.settled_at is None else found.settled[:-1]
    return {
        "id": message.id,
        "type": message.type,
        "state": f"{message.state}: {MEANING[message.state]}",
        "next": found.next if message.settled_at is None else None,
        "source": found.source,
        "subject": message.subject,
        "ordering key": message.ordering_key,
        "created": message.created_at,
        "due": message.due_at,
        message.state if message.settled_at else "settled": message.settled_at,
        "settled before": ", ".join(cell(at) for at in again) or None,
        "attempts": found.attempts,
        "shard": found.shard if found.owner is None else f"{found.shard}, owned by {found.owner}",
        "done by": ", ".join(f"{name} at {cell(at)}" for name, at in found.inbox.items()) or None,
        "headers": json.dumps(found.headers, ensure_ascii=False) if found.headers else None,
        "data": json.dumps(found.data, ensure_ascii=False),
    }


def _log(delivery: DeliveryRow) -> Table:
    rows = (
        (
            _instant(entry.get("at")),
            entry.get("attempt"),
            entry.get("verdict"),
            entry.get("reason"),
            entry.get("detail"),
        )
        for entry in delivery.log
    )
    return table("At", "Attempt", "Verdict", "Reason", "Answer", rows=rows, right=["Attempt"])


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
