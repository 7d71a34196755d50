"""The way of a plain message through the product is short: a reader who follows it changes the folder few times."""

from shape import ROOMS_PASSED
from support.way import measure


def test_a_plain_message_passes_few_rooms() -> None:
    way = measure()
    files = {file for file, _ in way.functions}
    assert files >= {"outbox/producer.py", "relay/delivery/lane.py", "relay/owner/settler.py"}, "the check sees the way"
    assert len(way.rooms) <= ROOMS_PASSED, way.rooms
