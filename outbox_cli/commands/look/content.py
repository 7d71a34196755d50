"""``outbox content``: find content without a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from outbox_cli.terminal.commands import LOOK, examples, group
from outbox_cli.terminal.output import Json, print_json, say
from outbox_cli.terminal.settings import operator_settings
from relay.platform.guide import COMPLETED
from relay.platform.wording import counted

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

BATCH_SIZE = 500

content = group("content", LOOK, "Find content without a baseline topic graph.")


@content.command(
    epilog=examples(
        "outbox content missing",
        "outbox content missing --emit  # notify the listener again; it builds each baseline once",
    )
)
def missing(
    emit_again: Annotated[bool, typer.Option("--emit", help="Emit extraction.completed for each of them.")] = False,
    as_json: Json = False,
) -> None:
    """List contents that have an extraction but no baseline graph."""
    from sqlalchemy.orm import Session

    import outbox.producer  # noqa: F401 (it listens on sessions, and has to before there is one)
    from listeners.content import missing_baselines
    from relay.admin.access.opening import opened
    from relay.databases.rights import BASELINE, RELAY

    found = []
    with opened(operator_settings(), needs=RELAY + BASELINE) as engine, Session(engine) as session:
        for content_id in missing_baselines(session):
            found.append(content_id)
            if not as_json:
                typer.echo(content_id)
            if emit_again:
                _emit(session, content_id)
                if len(found) % BATCH_SIZE == 0:
                    session.commit()
        session.commit()
    if as_json:
        print_json(found)
    say(
        f"{counted(len(found), 'content')} without a baseline"
        + (f"; emitted {counted(len(found), 'message')}" if emit_again else "")
    )


def _emit(session: Session, content_id: str) -> None:
    from outbox import emit

    emit(session, COMPLETED, {"contentId": content_id}, ordering_key=content_id)
