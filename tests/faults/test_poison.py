"""Messages that kill relays are convicted after one crash per allowed attempt; no other message is charged."""

from collections.abc import Callable

from support.databases import Database
from support.fleet import Fleet
from support.poison import Life, begun, lives
from support.waiting import eventually

from outbox import Draft, emit_many

MESSAGES = 2_000
POISON = 1_234
CONCURRENCY = 16


def commit(database: Database, count: int, *, key: Callable[[int], str | None] = lambda n: None) -> list[str]:
    drafts = [Draft("page.read", {"n": n}, ordering_key=key(n)) for n in range(count)]
    with database.engine.begin() as connection:
        return emit_many(connection, drafts)


def configure(fleet: Fleet, database: Database, *, poison: int = POISON, **settings: object) -> None:
    patience = {"max_attempts": 3, "backoff_s": 0.1}
    options = {"listener": "support.poison:kill", "concurrency": CONCURRENCY, **patience}
    fleet.configure(database.url, destinations={"listener": options}, beat_s=0.1, **settings)
    fleet.env["POISON"] = str(poison)


def supervise(fleet: Fleet, is_over: Callable[[], bool]) -> int:
    """Start a relay, and another one each time it has died, until it is over; return how many died."""
    deaths = 0
    relay = fleet.start()
    while True:
        eventually(lambda relay=relay: is_over() or not relay.is_running, deadline_s=60, what="it is over")
        if relay.is_running:
            return deaths
        deaths += 1
        relay = fleet.start()


def unsettled(database: Database) -> int:
    """Return how many deliveries are neither done nor dead, nor behind a dead letter."""
    return database.scalar(
        "SELECT (SELECT count(*) FROM outbox_message WHERE state <> 'held') + "
        "(SELECT count(*) FROM outbox_delivery AS d WHERE state <> 'dead' AND NOT EXISTS (SELECT 1 FROM "
        "outbox_delivery AS h WHERE h.state = 'dead' AND h.ordering_key = d.ordering_key AND h.position < d.position))"
    )


def killers(fleet: Fleet) -> list[Life]:
    return [life for life in lives(fleet.record_path).values() if life.unfinished]


def test_of_2000_messages_the_one_that_kills_its_relay_is_dead_after_three_crashes(database, fleet):
    ids = commit(database, MESSAGES)
    configure(fleet, database)
    deaths = supervise(fleet, lambda: unsettled(database) == 0)
    (dead,) = database.rows("SELECT message_id, state, attempts, reason FROM outbox_delivery")
    assert (str(dead.message_id), dead.state, dead.attempts) == (ids[POISON], "dead", 3)
    assert "relays died of it" in dead.reason
    assert deaths == 3
    history = database.rows("SELECT id, attempts FROM outbox_history")
    assert {str(row.id) for row in history} == set(ids) - {ids[POISON]}
    assert {row.attempts for row in history} == {1}, "no other message was charged"
    first, second, third = killers(fleet)
    assert third.unfinished == {POISON}, "it was tried alone"
    assert second.most_at_once > CONCURRENCY / 2, "noted messages were sent with full concurrency"
    assert len(set(first.begun) | set(second.begun) | set(third.begun)) == MESSAGES, "no message waited for the verdict"
    noted = "SELECT count(*) FROM outbox_shard WHERE started IS NOT NULL"
    eventually(lambda: database.scalar(noted) == 0, what="everything is forgotten")


def test_two_relays_that_die_in_turn_convict_the_one_too_and_keep_the_order_of_every_key(postgres_database, fleet):
    database = postgres_database
    ids = commit(database, 600, key=lambda n: f"k{n % 60}")
    configure(fleet, database, poison=300)
    relays = [fleet.start(), fleet.start()]
    deaths = 0
    while unsettled(database) or deaths < 3:
        eventually(lambda: not all(r.is_running for r in relays) or not unsettled(database), deadline_s=60)
        for i, relay in enumerate(relays):
            if not relay.is_running:
                deaths += 1
                assert deaths < 8, "it is never convicted"
                relays[i] = fleet.start()
    dead = database.rows("SELECT message_id FROM outbox_delivery WHERE state = 'dead'")
    assert [str(row.message_id) for row in dead] == [ids[300]]
    assert {row.attempts for row in database.rows("SELECT attempts FROM outbox_history")} == {1}
    of_key: dict[int, list[int]] = {}
    for n in dict.fromkeys(begun(fleet.record_path)):
        of_key.setdefault(n % 60, []).append(n)
    assert [key for key, numbers in of_key.items() if numbers != sorted(numbers)] == []
    assert of_key[0] == [0, 60, 120, 180, 240, 300], "what comes after a dead letter waits for an operator"
