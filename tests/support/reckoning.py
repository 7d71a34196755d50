"""Checks after a fault: every committed message was sent to both destinations, and had its effect once."""

from sqlalchemy import text

from support.databases import Database
from support.fleet import Fleet
from support.recording import firsts_by_key, of
from support.workload import Workload

# One destination that records, and one with an effect in the database.
BOTH = {
    "log": {"listener": "support.recording:record", "concurrency": 8},
    "effect": {"listener": "support.recording:apply", "concurrency": 4},
}


def prepared(database: Database, seed: int) -> Workload:
    """Prepare a workload, and the table of its effects."""
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE effect (message_id VARCHAR(36) NOT NULL)"))
    return Workload(database.engine, seed)


def unsettled(database: Database) -> int:
    """Return the number of messages and deliveries that are still to be done."""
    return database.scalar("SELECT (SELECT count(*) FROM outbox_message) + (SELECT count(*) FROM outbox_delivery)")


def assert_everything_happened_once(database: Database, fleet: Fleet, workload: Workload) -> None:
    """Assert that committed messages were sent to both in order by key, settled, not charged, with one effect each."""
    committed = workload.committed()
    sends = fleet.sends()
    for destination in BOTH:
        assert {send.id for send in of(destination, sends)} == set(committed)
        for key, numbers in firsts_by_key(of(destination, sends)).items():
            assert numbers == sorted(numbers), f"{destination} first saw {key} in the order {numbers}"
    assert not workload.rolled_back & {send.id for send in sends}
    effects = [row.message_id for row in database.rows("SELECT message_id FROM effect")]
    assert sorted(effects) == sorted(committed)
    history = database.rows("SELECT id, attempts FROM outbox_history")
    assert sorted(str(row.id) for row in history) == sorted(committed)
    assert {row.attempts for row in history} == {1}
