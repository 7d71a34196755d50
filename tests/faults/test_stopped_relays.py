"""Relays told to stop, and relays that come and go: what is under way ends in order, and others send the rest."""

import signal
from collections.abc import Callable

import psutil
from support.databases import Database
from support.fleet import Fleet, owners, shard_counts
from support.reckoning import unsettled
from support.recording import firsts_by_key
from support.waiting import eventually
from support.workload import Workload

from outbox import emit_many


def commit(database: Database, count: int, first: int = 0) -> set[str]:
    with database.engine.begin() as connection:
        return set(emit_many(connection, [("extraction.completed", {"n": first + n}) for n in range(count)]))


def settled(database: Database) -> set[str]:
    return {str(row.id) for row in database.rows("SELECT id FROM outbox_history")}


def test_after_sigterm_what_is_under_way_finishes_and_others_send_the_rest_once(database, fleet, spawn):
    fleet.configure(database.url)
    fleet.hold_path.touch()
    relay = spawn("outbox", "relay", env=fleet.env)
    ids = commit(database, 100)
    eventually(lambda: len(fleet.sends()) == 16, deadline_s=30, what="as many are under way as may be")
    relay.terminate()
    relay.wait_for_output("relay_stopping")
    fleet.hold_path.unlink()
    assert relay.wait() == 0
    under_way = {send.id for send in fleet.sends()}
    assert settled(database) == under_way
    assert len(under_way) < 100
    fleet.start()
    eventually(lambda: settled(database) == ids, deadline_s=30, what="the rest is settled")
    assert len(fleet.sends()) == 100


def test_a_second_sigterm_does_not_wait_for_what_is_under_way(database, fleet, spawn):
    fleet.configure(database.url)
    fleet.hold_path.touch()
    relay = spawn("outbox", "relay", env=fleet.env)
    ids = commit(database, 10)
    eventually(lambda: len(fleet.sends()) == 10, deadline_s=30)

    def has_ended() -> bool:
        relay.terminate()  # repeatedly: two signals at once may arrive as one
        return not relay.is_running

    eventually(has_ended, what="it stops at once")
    assert relay.returncode == 128 + signal.SIGTERM
    fleet.hold_path.unlink()
    fleet.start()
    eventually(lambda: settled(database) == ids, deadline_s=30, what="the next relay delivers all of it")


def test_a_killed_child_of_several_processes_comes_back_and_owns_its_share(postgres_database, fleet, spawn):
    fleet.configure(postgres_database.url, beat_s=0.2)
    supervisor = spawn("outbox", "relay", "--processes", "2", env=fleet.env)
    eventually(lambda: sorted(shard_counts(postgres_database.url).values()) == [32, 32], deadline_s=40)
    victim, survivor = shard_counts(postgres_database.url)
    psutil.Process(victim).kill()
    ids = commit(postgres_database, 200)
    eventually(lambda: settled(postgres_database) == ids, deadline_s=30, what="the other one delivers")

    def is_back() -> bool:
        counts = shard_counts(postgres_database.url)
        return victim not in counts and counts.get(survivor) == 32 and sorted(counts.values()) == [32, 32]

    eventually(is_back, deadline_s=40, what="two processes have half each again")
    supervisor.terminate()
    assert supervisor.wait() == 0
    assert owners(postgres_database.url) == {}


def test_on_sqlite_a_second_relay_stands_by_and_takes_over_from_one_that_is_killed(sqlite_database, fleet):
    fleet.configure(sqlite_database.url)
    first = fleet.start()
    eventually(lambda: "shards_taken" in first.output)
    second = fleet.start()
    eventually(lambda: "stands by" in second.output)
    ids = commit(sqlite_database, 50)
    eventually(lambda: settled(sqlite_database) == ids)
    assert {send.pid for send in fleet.sends()} == {first.pid}
    first.kill()
    ids |= commit(sqlite_database, 50, first=50)
    eventually(lambda: settled(sqlite_database) == ids, what="the second one delivers")
    assert len(fleet.sends()) == 100
    assert second.output.count("stands by") == 1


def test_shares_are_fair_from_one_relay_to_eight_to_three(postgres_database, fleet):
    url = postgres_database.url
    fleet.configure(url, beat_s=0.2)
    ids = commit(postgres_database, 500)
    fleet.start()
    await_fair(url, fleet)
    for _ in range(7):
        fleet.start()
    await_fair(url, fleet)
    ids |= commit(postgres_database, 500, first=500)
    for relay in fleet.relays[:2]:
        relay.kill()
    for relay in fleet.relays[2:5]:
        relay.terminate()
    await_fair(url, fleet)
    ids |= commit(postgres_database, 500, first=1000)
    eventually(lambda: settled(postgres_database) == ids, deadline_s=30, what="everything is settled")
    for relay in fleet.relays:
        relay.terminate()
    for relay in fleet.relays:
        relay.wait()
    assert owners(url) == {}, "a lock that was taken twice outlives one unlock"


def await_fair(url: str, fleet: Fleet, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Wait until all shards are owned in fair shares, and each relay's report agrees with the lock table."""

    def is_fair() -> bool:
        meanwhile()
        counts = shard_counts(url)
        alive = {relay.pid for relay in fleet.relays if relay.is_running}
        fair = 64 / len(alive)
        return sum(counts.values()) == 64 and set(counts) == alive and all(abs(n - fair) <= 1 for n in counts.values())

    eventually(is_fair, deadline_s=60, what="the shares are fair")


def test_a_stream_of_keys_is_sent_once_and_in_order_while_relays_come_and_go(postgres_database, fleet):
    """An attempt takes longer than a peer needs to take a shard that was handed back too early."""
    url = postgres_database.url
    many_at_once = {"log": {"listener": "support.recording:record", "concurrency": 50}}
    fleet.configure(url, destinations=many_at_once, beat_s=0.1, work_s=0.3)
    workload = Workload(postgres_database.engine, seed=20_270, key_count=200, key_share=1.0)

    def stream() -> None:
        if unsettled(postgres_database) < 150:
            workload.commit(50)

    def all_send() -> None:
        before = len(fleet.sends())
        alive = {relay.pid for relay in fleet.relays if relay.is_running}
        eventually(lambda: stream() or {send.pid for send in fleet.sends()[before:]} == alive, deadline_s=30)

    for _ in range(3):
        fleet.start()
        await_fair(url, fleet, meanwhile=stream)
        all_send()
    for relay in fleet.relays[:2]:
        relay.terminate()
        relay.wait()
        await_fair(url, fleet, meanwhile=stream)
        all_send()
    eventually(lambda: unsettled(postgres_database) == 0, deadline_s=30, what="everything is settled")
    sends = fleet.sends()
    assert sorted(send.id for send in sends) == sorted(workload.committed())
    for key, numbers in firsts_by_key(sends).items():
        assert numbers == sorted(numbers), f"{key} was sent in the order {numbers}"
