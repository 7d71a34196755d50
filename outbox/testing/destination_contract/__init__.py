"""The promises of every kind of destination, as checks that a package can run against its own kind.

A test makes a `World`: the other side that the destination sends to, and a way to see what arrived there. The test
calls each of `PROMISES` with a `World`. A promise that is not kept raises `AssertionError`::

    @pytest.mark.parametrize("promise", destination_contract.PROMISES, ids=str)
    def test_a_file_keeps_the_contract(promise, tmp_path):
        path = tmp_path / "events.jsonl"
        promise(World({"kind": "file", "path": str(path)}, taken=lambda: read(path)))

The kind is found by its name, so its package must be installed. No plugin of pytest is needed.
"""

from outbox.testing.destination_contract import outages, sending  # noqa: F401 (they fill PROMISES)
from outbox.testing.destination_contract.promise import PROMISES, Promise
from outbox.testing.destination_contract.world import (
    Taken,
    World,
    assert_outage,
    assert_taken,
    away,
    each_of,
    message,
    until,
)

__all__ = [
    "PROMISES",
    "Promise",
    "Taken",
    "World",
    "assert_outage",
    "assert_taken",
    "away",
    "each_of",
    "message",
    "until",
]
