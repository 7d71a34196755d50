"""Check the contents of the outbox; the checks are the same on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from outbox.tables import SHARD_COUNT
from relay.admin.counts import unrouted_types
from relay.admin.status import Status, status, word_of
from relay.platform.finding import Finding, Severity, bad, note, ok
from relay.platform.wording import counted

EXPIRED_SHARE = 0.01


def contents(connection: sa.Connection, *, lease_s: float, older_than_s: float) -> Iterator[Finding]:
    """Yield findings about waiting messages, their destinations and the relays."""
    found = status(connection)
    yield _relays(found, lease_s)
    yield _rows_of_shards(connection)
    yield _oldest(found, older_than_s)
    yield from _destinations(found)
    yield _dead(found)
    yield _expired(found)
    yield _unrouted(connection)


def _relays(found: Status, lease_s: float) -> Finding:
    if not found.relays:
        do = "start one: `outbox relay`; if one runs, its log says what it waits for"
        return bad("relays", "no relay is alive", "nothing is delivered", do)
    silent = [relay for relay in found.relays if relay.last_seen_s > 2 * lease_s]
    if silent:
        return bad(
            "relays",
            f"{', '.join(relay.id for relay in silent)} has not beaten for two leases, and its session is still there",
            "the messages of its shards wait until the server or a peer ends that session",
            "check that host: the process may be frozen, or the host disconnected",
        )
    owned = {shard for relay in found.relays for shard in relay.shards}
    missing = SHARD_COUNT - len(owned)
    if missing:
        return bad(
            "relays",
            f"{missing} of {SHARD_COUNT} shards have no living relay as owner",
            "their messages wait; this is normal for some seconds after a start or a hand-over",
            "check again in a minute; if it stays, the relays' logs say why they do not take shards",
        )
    return ok("relays", f"{len(found.relays)} alive, and every shard has an owner")


def _rows_of_shards(connection: sa.Connection) -> Finding:
    there = set(connection.scalars(sa.text("SELECT shard FROM outbox_shard")))
    missing = [f"({shard})" for shard in range(SHARD_COUNT) if shard not in there]
    if not missing:
        return ok("shards", "every shard has its row, which names its owner and the messages under way after a crash")
    return bad(
        "shards",
        f"{counted(len(missing), 'shard')} without a row in outbox_shard",
        "no relay owns them on PostgreSQL until one starts; a message that crashes its relay is not identified there",
        f"as the owner of the tables: INSERT INTO outbox_shard (shard) VALUES {', '.join(missing)}",  # noqa: S608 (for a person)
    )


def _oldest(found: Status, older_than_s: float) -> Finding:
    oldest_s = found.oldest_waiting_s
    if oldest_s is None or oldest_s <= older_than_s:
        return ok("oldest message", "none has been waiting for long" if oldest_s is not None else "no message waits")
    return bad(
        "oldest message",
        f"{counted(found.waiting, 'message')} waiting, the oldest for {oldest_s:,.0f} s",
        "it is late",
        "find out why: `outbox status`, `outbox destinations list`, `outbox messages list`",
    )


# The state of a destination, or what paused it → severity, reason and remedy.
ADVICE: dict[str | None, tuple[Severity, str, str]] = {
    "removed": (
        "bad",
        "they wait forever",
        "configure {name} again and run `outbox relay --apply`, or discard the dead letters",
    ),
    "off": ("bad", "it answered that it is gone for good", "`outbox resume {name}`, if it is back"),
    "healthy": ("note", "relays try them again by themselves", "`outbox destinations test {name}`"),
    "operator": ("note", "an operator paused it", "`outbox resume {name}`, when it may run again"),
    "failure": (
        "note",
        "relays try it again by themselves",
        "read the reason; `outbox resume {name}` tries at once",
    ),
}


def _destinations(found: Status) -> Iterator[Finding]:
    troubled = {name: each for name, each in found.destinations.items() if each.state != "healthy" or each.note}
    for name, each in troubled.items():
        said = f"{word_of(each)} ({each.reason})" if each.state != "healthy" else f"healthy, with {each.note}"
        severity, why, do = ADVICE.get(each.state) or ADVICE.get(each.paused_by) or ADVICE["failure"]
        what = f"{name} is {said}; waiting for it: {each.waiting:,}"
        yield Finding("destinations", severity, what, why, do.format(name=name))
    if not found.destinations:
        yield ok("destinations", "none is registered yet: the first relay registers those that it is configured with")
    elif not troubled:
        yield ok("destinations", f"{len(found.destinations)} registered, all healthy")


def _dead(found: Status) -> Finding:
    if not found.dead:
        return ok("dead letters", "none")
    return bad(
        "dead letters",
        f"{counted(found.dead, 'message')} given up at a destination",
        "they are not tried again, and with on_dead = block the successors of their keys wait",
        "`outbox dead list`; then `outbox dead retry` or `outbox dead discard`",
    )


def _expired(found: Status) -> Finding:
    share = found.expired / max(found.expired + found.delivered, 1)
    if share < EXPIRED_SHARE:
        return ok("expired", f"{counted(found.expired, 'message')} expired in the time that the history covers")
    return note(
        "expired",
        f"{counted(found.expired, 'message')} expired before any destination took them: {share:.0%} of what is settled",
        "no relay sends them any more",
        "`outbox messages list --state expired`; raise concurrency, rate or expires_in of their destination",
    )


def _unrouted(connection: sa.Connection) -> Finding:
    found = unrouted_types(connection)
    if not found:
        return ok("unrouted", "relays found a subscription for each message that they have read")
    types = ", ".join(f"{type_} ({count:,})" for type_, count in found[:5])
    more = f" and {len(found) - 5} other types" if len(found) > 5 else ""
    return bad(
        "unrouted",
        f"no subscription wants {types}{more}",
        "they are kept until a subscription wants them",
        "subscribe a destination to them and run `outbox relay --apply`, or `outbox cancel --unrouted`",
    )
