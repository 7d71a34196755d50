"""``outbox emit``: write one message from a shell."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import RUN, app, examples
from outbox_cli.terminal.options import instant, lasting
from outbox_cli.terminal.output import say
from outbox_cli.terminal.settings import operator_settings


@app.command(
    rich_help_panel=RUN,
    epilog=examples(
        """outbox emit extraction.completed '{"contentId": "c-1"}'""",
        """outbox emit extraction.completed '{"contentId": "c-1"}' --ordering-key c-1 --delay 10m""",
        "outbox emit price.changed '{\"price\": 3}' --expires-in 5m",
        "outbox emit report.wanted - < report.json  # data from stdin",
    ),
)
def emit(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="The event type, such as extraction.completed.")],
    data: Annotated[str, typer.Argument(metavar="JSON", help="The event's data; - reads it from stdin.")],
    ordering_key: Annotated[str | None, typer.Option(help="Messages with the same key are delivered in order.")] = None,
    subject: Annotated[str | None, typer.Option(help="What the event is about.")] = None,
    header: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header; may be repeated.")] = None,
    delay: Annotated[float | None, lasting("Deliver after this time: 30s, 10m, 2h.")] = None,
    due_at: Annotated[
        datetime | None,
        typer.Option(
            parser=instant, metavar="WHEN", help="Deliver no earlier than: 2026-03-01, 2026-03-01T12:30Z (UTC)."
        ),
    ] = None,
    expires_in: Annotated[
        float | None, lasting("Deliver within this time from now, or from the due time: 30s, 10m, 2h.")
    ] = None,
    id_: Annotated[str | None, typer.Option("--id", help="The message's id, a UUID; default: a new one.")] = None,
) -> None:
    """Commit one message, and print its id."""
    from sqlalchemy.exc import IntegrityError

    from outbox import EmitError
    from outbox import emit as write
    from relay.admin.access.opening import opened
    from relay.databases.rights import COMMANDS, WORKER

    if delay is not None and due_at is not None:
        raise typer.BadParameter("give --delay or --due-at, not both")
    options: dict[str, Any] = {
        "ordering_key": ordering_key,
        "subject": subject,
        "headers": _headers(header) if header else None,
        "delay": delay,
        "due_at": due_at,
        "expires_in": expires_in,
        "id": id_,
    }
    given = {name: value for name, value in options.items() if value is not None}
    try:
        with opened(operator_settings(), needs=WORKER + COMMANDS) as engine, engine.begin() as connection:
            message_id = write(connection, type_, _parsed(data), **given)
    except EmitError as error:
        raise typer.BadParameter(str(error)) from None
    except IntegrityError:
        say(f"nothing was committed: there is a message with the id {id_} already")
        raise typer.Exit(exits.FAILED) from None
    typer.echo(message_id)


def _parsed(text: str) -> Any:
    try:
        return json.loads(sys.stdin.read() if text == "-" else text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        is_misquoted = isinstance(error, json.JSONDecodeError) and text != "-"
        advice = """; put it in single quotes, as in '{"contentId": "c-1"}'""" if is_misquoted else ""
        raise typer.BadParameter(f"the data is not JSON that can be sent: {error}{advice}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; refuse a repeated name, because a database would keep only its last value."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {json.dumps(name)} stands twice in one object")
        found[name] = value
    return found


def _headers(given: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in given]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise typer.BadParameter("write --header NAME=VALUE")
    found = {name: value for name, _, value in pairs}
    if len(found) < len(pairs):
        raise typer.BadParameter("two headers have the same name: give each once")
    return found
