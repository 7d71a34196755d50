"""``outbox audit``: show operators' actions."""

from __future__ import annotations

import json
from functools import partial

from outbox_cli.terminal.commands import LOOK, app, examples
from outbox_cli.terminal.options import Limit
from outbox_cli.terminal.output import Json, show, table
from outbox_cli.terminal.settings import reading


@app.command(rich_help_panel=LOOK, epilog=examples("outbox audit", "outbox audit --limit 100 --json"))
def audit(
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Show the actions of operators: time, person, action, target, count and reason."""
    from relay.admin.audit import record

    with reading() as connection:
        found = record(connection, limit=limit)
    rows = (
        (e.at, e.actor, e.role, e.action, json.dumps(e.target, ensure_ascii=False), e.count, e.reason) for e in found
    )
    columns = ("At", "Who", "Role", "What", "To what", "Count", "Why")
    made = partial(table, *columns, rows=rows, right=["Count"])
    show(found, made, as_json=as_json, otherwise="there are no actions of operators yet")
