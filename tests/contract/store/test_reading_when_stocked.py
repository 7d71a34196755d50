"""A relay reads at intervals while its event loop has enough to do, and otherwise at once."""

import pytest
from support.desk import Desk
from support.reading import EventLoop, reader

from relay.databases.store.rows import Cursors
from relay.owner.reader import LITTLE, STOCKED_READ_EVERY_S

PAGE = 80


class Reading:
    """A reader of all shards, on a clock that only the test moves."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.loop, self.now = desk, EventLoop(PAGE, window=4 * PAGE), 100.0
        self.reader = reader(desk.owner(), self.loop, Cursors({}), clock=lambda: self.now)

    def read(self, count: int) -> int:
        """Emit this number of messages and read; return how many came."""
        self.desk.emit(count)
        before = len(self.loop.pages)
        self.reader.read()
        return sum(len(page.messages) for page in self.loop.pages[before:])


@pytest.fixture
def reading(desk: Desk) -> Reading:
    made = Reading(desk)
    made.read(0)
    return made


def test_every_read_finds_what_was_emitted_while_the_event_loop_has_room(reading: Reading) -> None:
    assert [reading.read(1) for _ in range(3)] == [1, 1, 1]
    assert not reading.reader.is_stocked


@pytest.mark.parametrize("room", [0, PAGE // LITTLE])
def test_a_read_waits_while_there_is_little_room(reading: Reading, room: int) -> None:
    reading.read(1)
    reading.loop.free = room
    assert reading.read(1) == 0
    assert reading.reader.is_stocked
    reading.now += STOCKED_READ_EVERY_S
    assert reading.read(1) == min(room, 2), "the relay reads, at intervals, what there is room for"
    assert reading.read(1) == 0
    reading.loop.free = PAGE // LITTLE + 1
    assert reading.read(0) == 4 - min(room, 2) - 1, "at once when there is more"


def test_a_read_waits_while_there_is_little_to_read_and_every_destination_has_much_to_send(reading: Reading) -> None:
    reading.loop.is_stocked = True
    reading.now += STOCKED_READ_EVERY_S
    assert reading.read(PAGE) == PAGE
    assert reading.read(1) == 1, "the last page was full: more may wait"
    assert reading.read(1) == 0
    reading.now += STOCKED_READ_EVERY_S
    assert reading.read(1) == 2
    assert reading.read(1) == 0
    reading.loop.is_stocked = False
    assert reading.read(0) == 1, "at once when a destination has little to send"


def test_a_read_does_not_wait_while_no_destination_takes_messages(reading: Reading) -> None:
    """It may be the one that shows that a destination is back."""
    reading.loop.free, reading.loop.is_closed = 1, True
    assert [reading.read(1) for _ in range(3)] == [1, 1, 1]
