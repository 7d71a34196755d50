"""Checks of what is in the outbox, the same on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from outbox.tables import SHARD_COUNT
from relay.admin.doctor.finding import Finding, bad, note, ok
from relay.admin.messages.unrouted import unrouted_types
from relay.admin.status import Status, status
from relay.platform.wording import counted

EXPIRED_SHARE = 0.01


def contents(connection: sa.Connection, *, lease_s: float, older_than_s: float) -> Iterator[Finding]:
    """What waits, for whom, and who is there to deliver it."""
    found = status(connection)
    yield _relays(found, lease_s)
    yield _crash_watch(connection)
    yield _oldest(found, older_than_s)
    yield from _destinations(found)
    yield _dead(found)
    yield _expired(found)
    yield _unrouted(connection)


def _relays(found: Status, lease_s: float) -> Finding:
    if not found.relays:
        return bad("relays", "no relay is alive", "nothing is delivered", "start one: `outbox relay`")
    silent = [relay for relay in found.relays if relay.last_seen_s > 2 * lease_s]
    if silent:
        return bad(
            "relays",
            f"{', '.join(relay.id for relay in silent)} has not beaten for two leases, and its session is still there",
            "the messages of its shards wait until the server or a peer ends that session",
            "look at that host: the process may be frozen, or the host cut off",
        )
    owned = {shard for relay in found.relays for shard in relay.shards}
    missing = SHARD_COUNT - len(owned)
    if missing:
        return bad(
            "relays",
            f"{missing} of {SHARD_COUNT} shards belong to no relay that is alive",
            "their messages wait; for some seconds after a start or a hand-over that is as it should be",
            "look again in a minute; if it stays, look into the relays' logs for what keeps them from taking shards",
        )
    return ok("relays", f"{len(found.relays)} alive, and every shard has an owner")


def _crash_watch(connection: sa.Connection) -> Finding:
    there = set(connection.scalars(sa.text("SELECT shard FROM outbox_shard")))
    missing = [f"({shard})" for shard in range(SHARD_COUNT) if shard not in there]
    if not missing:
        return ok("crash watch", "every shard has the row in which a relay notes what it has under way")
    return bad(
        "crash watch",
        f"{counted(len(missing), 'shard')} without a row in outbox_shard",
        "a message that kills its relay is not found out there, and kills the next one as well",
        f"as the owner of the tables: INSERT INTO outbox_shard (shard) VALUES {', '.join(missing)}",  # noqa: S608 (for a person)
    )


def _oldest(found: Status, older_than_s: float) -> Finding:
    oldest_s = found.oldest_waiting_s
    if oldest_s is None or oldest_s <= older_than_s:
        return ok("oldest message", "nothing has been waiting for long" if oldest_s is not None else "nothing waits")
    return bad(
        "oldest message",
        f"{counted(found.waiting, 'message')} waiting, the oldest for {oldest_s:,.0f} s",
        "somebody has been waiting for it",
        "see what it waits for: `outbox status`, `outbox destinations list`, `outbox messages list`",
    )


def _destinations(found: Status) -> Iterator[Finding]:
    for name, each in found.destinations.items():
        what = f"{name} is {each.state} ({each.reason}); waiting for it: {each.waiting:,}"
        if each.state == "removed":
            yield bad(
                "destinations",
                what,
                "they wait for ever",
                f"configure {name} again and run `outbox relay --apply`, or discard what is dead",
            )
        elif each.state == "off":
            yield bad(
                "destinations", what, "it said that it is gone for good", f"`outbox resume {name}`, when it is not"
            )
        elif each.paused_by == "operator":
            yield note(
                "destinations", what, "an operator paused it: it stays so", f"`outbox resume {name}`, when it may"
            )
        elif each.state != "healthy":
            yield note(
                "destinations",
                what,
                "it is tried again by itself",
                f"look at the reason; `outbox resume {name}` tries at once",
            )
    if all(each.state == "healthy" for each in found.destinations.values()):
        yield ok("destinations", f"{len(found.destinations)} registered, and all of them healthy")


def _dead(found: Status) -> Finding:
    if not found.dead:
        return ok("dead letters", "there are none")
    return bad(
        "dead letters",
        f"{counted(found.dead, 'message')} given up at a destination",
        "nobody tries them again, and with on_dead = block their keys' successors wait",
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
        return ok("unrouted", "every message is wanted by a subscription")
    types = ", ".join(f"{type_} ({count:,})" for type_, count in list(found.items())[:5])
    more = f" and {len(found) - 5} other types" if len(found) > 5 else ""
    return bad(
        "unrouted",
        f"no subscription wants {types}{more}",
        "they are kept and wait for one, however long that takes",
        "subscribe a destination to them and run `outbox relay --apply`, or `outbox messages discard-unrouted`",
    )
