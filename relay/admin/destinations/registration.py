"""Register destinations: the registry defines when a message is settled everywhere.

A message is settled when every *registered* destination that wants it has it. So the registry is kept in the database
and not in each relay's configuration: a host without `API_URL` must not deliver a message to the other destinations and
then forget it. The first relay registers its configured destinations. A relay with another configuration reports the
differences and owns nothing, unless it is started with `--apply`, which raises the generation.

Relays of an older generation read no message that was committed after the change. They finish the messages that they
have read, hand their shards back and end. So each message goes to the destinations of one generation, whichever relay
reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

from outbox.errors import ConfigurationDiffers
from outbox.tables import Tables, insert, tables
from relay.admin.audit import Action
from relay.databases.database import Database
from relay.databases.dialect import dialect_of
from relay.databases.rights import Right
from relay.databases.schema import CONTENT_TABLES, check_content, check_schema
from relay.databases.store.contract import ON_A_STANDBY, Standby
from relay.decide.subscription import remembered
from relay.decide.verdict import State

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True)
class Registration:
    """The registered settings of a destination.

    Args:
        name: The destination's name.
        kind: The text after ``kind =``.
        events: The event types it wants, globs allowed.
        on_dead: ``"block"`` or ``"skip"``.
        rate: The rate limit that relays keep. It is only shown to people, and not compared.
    """

    name: str
    kind: str
    events: Sequence[str]
    on_dead: str
    rate: str | None = None

    def differences(self, other: Registration) -> list[str]:
        pairs = [
            ("kind", self.kind, other.kind),
            ("events", ", ".join(self.events), ", ".join(other.events)),
            ("on_dead", self.on_dead, other.on_dead),
        ]
        return [f"{what} is {mine} here and {theirs} there" for what, mine, theirs in pairs if mine != theirs]


def register(
    database: Database, wanted: Sequence[Registration], *, apply: bool = False, needs: Sequence[Right] = ()
) -> int:
    """Register destinations, or check that they are the registered ones.

    Args:
        database: The database of the outbox.
        wanted: The configured destinations.
        apply: Replace the registered destinations, as a new generation.
        needs: The rights that the role must have.

    Returns:
        The generation.

    Raises:
        SchemaError: This release cannot use the schema.
        Unusable: The role lacks a right.
        ConfigurationDiffers: Other destinations are registered, and ``apply`` is ``False``.
        Standby: A destination has to be registered, but this database takes no writes.
    """
    with database.short_engine() as engine, engine.begin() as connection:
        database.dialect.refuse_without(connection, [right for right in needs if right.name not in CONTENT_TABLES])
        check_schema(connection, database.place)
        check_content(connection, needs)
        database.dialect.refuse_without(connection, needs)
        dialect_of(connection).lock_registry(connection)
        generation = _register(connection, tables(database.schema), {w.name: w for w in wanted}, apply=apply)
        _note_rates(connection, tables(database.schema), wanted)
        return generation


def _register(connection: sa.Connection, t: Tables, wanted: dict[str, Registration], *, apply: bool) -> int:
    rows = connection.execute(sa.select(t.destination)).all()
    known = _known(rows)
    generation: int = max((r.generation for r in rows), default=0)
    found = _differences(wanted, known)
    if not found:
        return generation
    if known and not apply:
        raise ConfigurationDiffers(
            "the configured destinations are not the registered ones, so this relay owns nothing: "
            + "; ".join(found)
            + ". Correct the configuration, or run `outbox relay --apply` to register it"
        )
    if dialect_of(connection).is_standby(connection):
        raise Standby(ON_A_STANDBY)
    _replace(connection, t, wanted, known, generation + 1)
    Action("destinations apply", {"changes": found}).add(connection, len(found))
    if known:
        log.warning("destinations_applied", generation=generation + 1, changes=found)
    return generation + 1


def differences(connection: sa.Connection, wanted: Sequence[Registration]) -> list[str]:
    """Return how these destinations differ from the registered ones; a relay with differences would be refused."""
    known = _known(connection.execute(sa.select(tables().destination)).all())
    return _differences({each.name: each for each in wanted}, known) if known else []


def _known(rows: Sequence[sa.Row[Any]]) -> dict[str, Registration]:
    return {r.name: Registration(r.name, r.kind, tuple(r.events), r.on_dead) for r in rows if r.removed_at is None}


def _differences(wanted: dict[str, Registration], known: dict[str, Registration]) -> list[str]:
    missing = [f"{name} is registered and not configured here" for name in sorted(known.keys() - wanted.keys())]
    added = [f"{name} is configured here and not registered" for name in sorted(wanted.keys() - known.keys())]
    changed = [
        f"{name}: {difference}"
        for name in sorted(wanted.keys() & known.keys())
        for difference in wanted[name].differences(known[name])
    ]
    return missing + added + changed


def _replace(
    connection: sa.Connection,
    t: Tables,
    wanted: dict[str, Registration],
    known: dict[str, Registration],
    generation: int,
) -> None:
    """Replace the registered destinations. A removed one keeps its row, so its waiting deliveries stay visible."""
    d, now = t.destination.c, sa.func.now()
    memory = {row.name: row.wanted for row in connection.execute(sa.select(d.name, d.wanted))}
    for name in known.keys() - wanted.keys():
        gone = {"removed_at": now, "changed_at": now, "wanted": remembered(memory[name], generation, None)}
        connection.execute(sa.update(t.destination).where(d.name == name).values(generation=generation, **gone))
    for w in wanted.values():
        values: dict[str, Any] = {
            "kind": w.kind,
            "events": list(w.events),
            "wanted": remembered(memory.get(w.name, []), generation, w.events),
            "on_dead": w.on_dead,
            "generation": generation,
            "removed_at": None,
        }
        put = insert(connection, t.destination).values(name=w.name, **values)
        connection.execute(put.on_conflict_do_update(index_elements=["name"], set_=values))
    _look_again_at_unrouted(connection, t)


def _note_rates(connection: sa.Connection, t: Tables, wanted: Sequence[Registration]) -> None:
    """Record each destination's rate limit, for people; the used budget is kept in the same rows."""
    limits = {w.name: w.rate for w in wanted if w.rate is not None}
    r = t.rate.c
    known = {row.destination: row.rate for row in connection.execute(sa.select(r.destination, r.rate))}
    if known == limits or dialect_of(connection).is_standby(connection):
        return
    connection.execute(sa.delete(t.rate).where(r.destination.not_in(limits)))
    for name, rate in limits.items():
        put = insert(connection, t.rate).values(destination=name, rate=rate)
        connection.execute(put.on_conflict_do_update(index_elements=["destination"], set_={"rate": rate}))


def _look_again_at_unrouted(connection: sa.Connection, t: Tables) -> None:
    """Make relays read unrouted messages again: a new subscription may want them."""
    m = t.message.c
    connection.execute(
        sa.update(t.message)
        .where(m.state == State.UNROUTED)
        .values(state=State.READY, txid=dialect_of(connection).next_txid(connection))
    )
