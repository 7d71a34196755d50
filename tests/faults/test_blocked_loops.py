"""A listener that blocks the event loop: its relay beats while it can, then ends itself, and a peer takes over."""

from support.databases import Database
from support.fleet import Fleet, shard_counts
from support.poison import lives
from support.processes import Process, Spawner
from support.waiting import eventually

from outbox import emit_many

MESSAGES = 100
POISON = 50


def start_blocked(
    database: Database, fleet: Fleet, spawn: Spawner, listener: str, *, stall_timeout_s: float = 2, **settings: object
) -> Process:
    """Start a relay that hangs in its listener; relays that the fleet starts later do not."""
    fleet.configure(
        database.url,
        destinations={"pages": {"listener": f"support.poison:{listener}"}},
        beat_s=0.1,
        stall_timeout_s=stall_timeout_s,
        **settings,
    )
    relay = spawn("outbox", "relay", env={**fleet.env, "POISON": str(POISON)})
    fleet.env["POISON"] = "none"
    relay.wait_for_output("relay_started")
    with database.engine.begin() as connection:
        emit_many(connection, [("page.read", {"n": n}) for n in range(MESSAGES)])
    eventually(lambda: POISON in begun_in(fleet, relay), deadline_s=30, what="it has begun with the poison")
    return relay


def begun_in(fleet: Fleet, relay: Process) -> list[int]:
    found = lives(fleet.record_path).get(relay.pid)
    return found.begun if found else []


def assert_peer_goes_on(database: Database, fleet: Fleet, relay: Process) -> None:
    assert relay.wait(deadline_s=30) == 1, "the exit code that the guide names"
    eventually(
        lambda: database.scalar("SELECT count(*) FROM outbox_history") == MESSAGES,
        deadline_s=30,
        what="the peer delivers everything",
    )


def test_a_relay_blocked_by_an_async_listener_beats_then_ends_and_says_which_it_was(postgres_database, fleet, spawn):
    relay = start_blocked(postgres_database, fleet, spawn, "sleep", stall_timeout_s=6)
    last_seen = "SELECT max(last_seen_at) FROM outbox_relay"
    for _ in range(3):
        before = postgres_database.scalar(last_seen)
        eventually(lambda before=before: postgres_database.scalar(last_seen) > before, what="it beats")
    peer = fleet.start()
    assert_peer_goes_on(postgres_database, fleet, relay)
    assert shard_counts(postgres_database.url) == {peer.pid: 64}
    (said,) = [line for line in relay.stderr.splitlines() if "event_loop_stalled" in line]
    assert "support.poison:sleep" in said
    assert "poison.py" in said, "and where"


def test_a_listener_that_holds_the_interpreter_loses_its_shards_with_the_lease_and_its_process_at_last(
    postgres_database, fleet, spawn
):
    """No thread of the relay can run: the server ends its session, and a timer in C ends the process."""
    relay = start_blocked(postgres_database, fleet, spawn, "hold_the_interpreter", lease_s=1)
    peer = fleet.start()
    eventually(
        lambda: shard_counts(postgres_database.url) == {peer.pid: 64}, deadline_s=30, what="a peer owns everything"
    )
    assert_peer_goes_on(postgres_database, fleet, relay)
    assert "in hold_the_interpreter" in relay.stderr


def test_on_sqlite_too_a_blocked_relay_makes_room_for_the_one_that_stands_by(sqlite_database, fleet, spawn):
    relay = start_blocked(sqlite_database, fleet, spawn, "sleep")
    fleet.start()
    assert_peer_goes_on(sqlite_database, fleet, relay)


ENDING_SOON = "import relay.platform.watchdog; relay.platform.watchdog.HELD_S = 1; from outbox_cli import main; main()"


def test_a_relay_ends_itself_when_all_threads_of_a_plain_listener_hang_and_a_peer_goes_on(
    postgres_database, fleet, spawn
):
    """A thread cannot be stopped: it hangs even after the resource that it waits for is back."""
    fleet.configure(
        postgres_database.url,
        destinations={"pages": {"listener": "support.poison:hang", "concurrency": 2, "timeout_s": 0.2}},
    )
    relay = spawn("python", "-c", ENDING_SOON, "relay", env={**fleet.env, "POISON": "0,1"})
    fleet.env["POISON"] = "none"
    relay.wait_for_output("relay_started")
    with postgres_database.engine.begin() as connection:
        emit_many(connection, [("page.read", {"n": n}) for n in range(MESSAGES)])
    assert relay.wait(deadline_s=30) == 1
    (said,) = [line for line in relay.stderr.splitlines() if "listener_stalled" in line]
    assert "support.poison:hang" in said
    fleet.start()
    eventually(lambda: postgres_database.scalar("SELECT count(*) FROM outbox_history") == MESSAGES, deadline_s=30)
