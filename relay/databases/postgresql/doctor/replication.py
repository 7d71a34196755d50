"""Checks for the effects of logical replication and of restoring a dump."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from relay.platform.finding import Finding, bad, ok

# The modes of a trigger: see the manual on ALTER TABLE and on session_replication_role.
MODES = {"O": "ENABLE", "D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
TRIGGERS = {
    "zz_outbox_message_checked": ("outbox_message", "O"),
    "zz_outbox_message_applied": ("outbox_message", "R"),
    "zz_outbox_delivery_applied": ("outbox_delivery", "R"),
}
FOUND_TRIGGERS = """
SELECT t.tgname, t.tgenabled FROM pg_trigger AS t
WHERE t.tgrelid IN (to_regclass('outbox_message'), to_regclass('outbox_delivery')) AND NOT t.tgisinternal
"""


@dataclass(frozen=True)
class Counter:
    """A column that a sequence fills.

    Args:
        table: The table.
        column: The column.
        harm: The effect of a sequence that is behind.
        remedy: The query for the number from which to continue.
    """

    table: str
    column: str
    harm: str
    remedy: str

    @property
    def sequence(self) -> str:
        return f"{self.table}_{self.column}_seq"


COUNTERS = [
    Counter(
        "outbox_message",
        "position",
        "new messages go before older ones of their ordering key",
        "SELECT max(position) FROM (SELECT position FROM outbox_message UNION SELECT position FROM outbox_history) p",
    ),
    Counter("outbox_relay", "number", "relays fail to register", "SELECT max(number) FROM outbox_relay"),
    Counter("outbox_audit", "id", "actions of operators are refused", "SELECT max(id) FROM outbox_audit"),
]


def replication(connection: sa.Connection) -> Iterator[Finding]:
    """Yield findings about sequences, which are not replicated, and triggers, whose mode a restored dump may change."""
    yield _sequences(connection)
    yield _triggers(connection)


def _sequences(connection: sa.Connection) -> Finding:
    behind = [(counter, found) for counter in COUNTERS if (found := _behind(connection, counter))]
    if not behind:
        return ok("sequences", "each is ahead of its column")
    return bad(
        "sequences",
        "; ".join(f"{counter.sequence} is at {found[0]:,}, but {counter.table} is at {found[1]:,}"
                  for counter, found in behind),
        "; ".join(counter.harm for counter, _ in behind),
        "as the owner of the tables: " + "; ".join(
            f"SELECT setval('{counter.sequence}', ({counter.remedy}))" for counter, _ in behind),
    )  # fmt: skip


def _behind(connection: sa.Connection, counter: Counter) -> tuple[int, int] | None:
    """Return the values of a sequence and of its column, if the sequence is behind."""
    may_read = "SELECT has_sequence_privilege(to_regclass(:name), 'SELECT')"
    if not connection.scalar(sa.text(may_read), {"name": counter.sequence}):
        return None
    table = sa.table(counter.table, sa.column(counter.column))
    highest = connection.scalar(sa.select(sa.func.max(table.c[counter.column]))) or 0
    sequence = sa.table(counter.sequence, sa.column("last_value"), sa.column("is_called"))
    last, is_called = connection.execute(sa.select(sequence.c.last_value, sequence.c.is_called)).one()
    return (last, highest) if highest >= last + is_called else None


def _triggers(connection: sa.Connection) -> Finding:
    found = {row.tgname: row.tgenabled for row in connection.execute(sa.text(FOUND_TRIGGERS))}
    wrong = [name for name, (_, mode) in TRIGGERS.items() if found.get(name, mode) != mode]
    if not wrong:
        return ok("triggers", "each of ours fires when it should")
    return bad(
        "triggers",
        "; ".join(f"{name} is set to {MODES[found[name]]} TRIGGER" for name in wrong),
        "messages are not checked, or a relay never finds messages that are replicated to here; restoring a dump "
        "with --disable-triggers does this",
        "as the owner of the tables: "
        + "; ".join(f"ALTER TABLE {TRIGGERS[name][0]} {MODES[TRIGGERS[name][1]]} TRIGGER {name}" for name in wrong),
    )
