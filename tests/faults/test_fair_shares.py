"""Fair shares at the default pace: as relays start, end or cannot own, all 64 shards are owned within five seconds."""

from collections.abc import Callable
from threading import Event, Thread
from time import monotonic

from support.databases import Database
from support.fleet import Fleet, shard_counts
from support.waiting import eventually

from relay.owner.startup import open_store
from relay.settings import Settings

WITHIN_S = 5.0
LOOK_S = 0.3  # from one look to the next on a machine that runs


def presences(database: Database) -> int:
    """Return how many relays are alive, by the server's lock table."""
    return database.scalar(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )


def assert_soon(is_so: Callable[[], bool], what: str) -> None:
    """Assert that it is so within five seconds, those not counted in which the machine did not even look."""
    began_at = looked_at = monotonic()
    still_s = 0.0

    def look() -> bool:
        nonlocal looked_at, still_s
        before, looked_at = looked_at, monotonic()
        still_s += max(looked_at - before - LOOK_S, 0)
        return is_so()

    eventually(look, what=what)
    assert looked_at - began_at - still_s <= WITHIN_S, what


def assert_soon_fair(database: Database, fleet: Fleet) -> None:
    """Assert that the shares are fair soon after the server knows the last relay."""
    alive = {relay.pid for relay in fleet.relays if relay.is_running}
    fair = 64 / len(alive)

    def is_fair() -> bool:
        counts = shard_counts(database.url)  # asserts that no shard is held twice
        assert set(counts) == alive, counts
        return sum(counts.values()) == 64 and all(abs(n - fair) <= 1 for n in counts.values())

    eventually(lambda: presences(database) == len(alive), deadline_s=30, what="all of them are there")
    assert_soon(is_fair, "the shares are fair")


def test_one_to_eight_to_three_relays_share_fairly_within_five_seconds(postgres_database, fleet):
    fleet.configure(postgres_database.url)
    fleet.start()
    assert_soon_fair(postgres_database, fleet)
    for _ in range(7):
        fleet.start()
    assert_soon_fair(postgres_database, fleet)
    for relay in fleet.relays[:3]:
        relay.kill()
    for relay in fleet.relays[3:5]:
        relay.terminate()
    for relay in fleet.relays[:5]:
        relay.wait()
    assert_soon_fair(postgres_database, fleet)
    # No relay has locked a shard twice: what a living relay hands back, or a dead one held, is free at once.
    fleet.start()
    assert_soon_fair(postgres_database, fleet)


def test_eight_relays_started_in_the_same_instant_share_fairly_within_five_seconds(postgres_database, fleet):
    fleet.configure(postgres_database.url)
    for _ in range(8):
        fleet.start()
    assert_soon_fair(postgres_database, fleet)


def test_a_relay_that_beats_but_cannot_own_leaves_no_shard_without_an_owner(postgres_database, fleet):
    settings = Settings(database_url=postgres_database.url)
    session = open_store(settings).open("beats-and-no-more")
    is_over = Event()

    def beat() -> None:
        while not is_over.wait(settings.beat_s / 2):
            session.ownership.beat([], 0)

    beating = Thread(target=beat)
    beating.start()
    try:
        fleet.configure(postgres_database.url)
        two = {fleet.start().pid, fleet.start().pid}
        eventually(lambda: presences(postgres_database) == 3, deadline_s=30)

        def all_are_owned() -> bool:
            counts = shard_counts(postgres_database.url)
            return set(counts) == two and sum(counts.values()) == 64 and min(counts.values()) >= 64 // 3

        assert_soon(all_are_owned, "the others take what it cannot")
    finally:
        is_over.set()
        beating.join()
        session.close()
