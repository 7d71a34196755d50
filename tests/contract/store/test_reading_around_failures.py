"""A reader passes by the deliveries that were tried without result, and reads some of those behind them."""

from collections.abc import Sequence
from typing import cast

import pytest
from support.desk import ALL, Desk, everything, ruling, settle
from support.reading import EventLoop, reader

from relay.databases.store.rows import Cursors, Row


class Reading:
    """A reader of deliveries that are all parked at "a", in the order in which they were emitted."""

    def __init__(self, desk: Desk, *, is_down: bool = False) -> None:
        self.desk, self.loop, self.session = desk, EventLoop(1, window=1, is_down=is_down), desk.owner()
        self.sent: list[str] = []
        self.reader = reader(self.session, self.loop, everything(), clock=lambda: 0.0)
        self.reader.read()

    def park(self, count: int, key: str | None = None) -> None:
        sent = self.desk.emit(count, ordering_key=key)
        self.reader.note_exceptions(settle(self.session, *(ruling(each, "a", "parked") for each in sent)))
        self.sent += sent

    def try_next(self) -> int:
        """Read one delivery, and park it again as tried; return its number."""
        self.reader.read()
        (row,) = self.loop.pages[-1].deliveries
        parked = settle(self.session, ruling(row[0], "a", "parked"), fresh=False)
        self.reader.note_exceptions(parked, ["a"])
        return self.sent.index(row[0])

    def take_all(self) -> None:
        """Let the destination take everything that is parked."""
        while self.desk.deliveries():
            self.reader.read()
            for row in self.loop.pages[-1].deliveries:
                settle(self.session, ruling(row[0], "a", "delivered"), fresh=False)
        self.reader.read()
        self.reader.read()

    def waits_behind(self) -> int | None:
        """Return the number of the delivery behind which the last one must wait."""
        at = next(iter(self.loop.pages[-1].blocked.values()), None)
        return next((n for n, each in enumerate(self.sent) if self.desk.position(each) == at), None)


def test_all_are_read_though_those_before_them_fail_and_are_parked_again(desk: Desk) -> None:
    reading = Reading(desk)
    reading.park(20)
    assert set(range(20)) <= {reading.try_next() for _ in range(80)}


def test_those_that_were_tried_are_read_again_though_more_are_parked_than_are_read(desk: Desk) -> None:
    reading = Reading(desk)
    reading.park(2)
    read = []
    for _ in range(40):
        reading.park(2)
        read.append(reading.try_next())
    assert read.count(0) >= 4
    assert max(read) >= 10


def test_those_that_were_tried_in_a_second_outage_are_read_again_as_soon_as_in_the_first(desk: Desk) -> None:
    reading = Reading(desk)
    read = []
    for _ in range(2):
        first = len(reading.sent)
        reading.park(40)
        read.append([reading.try_next() == first for _ in range(17)])  # the others' order depends on their shards
        reading.take_all()
    assert read[0] == read[1]


def test_none_is_sent_before_an_earlier_one_of_its_key_that_was_passed_by(desk: Desk) -> None:
    reading = Reading(desk)
    reading.park(6, key="k")
    behind = [(reading.try_next(), reading.waits_behind()) for _ in range(8)]
    assert max(n for n, _ in behind) > 0
    assert {before for n, before in behind if n} == {0}


@pytest.mark.parametrize("key", [None, "k"])
def test_of_a_destination_that_is_down_some_further_on_are_read_too(desk: Desk, key: str | None) -> None:
    reading = Reading(desk, is_down=True)
    reading.park(64, key=key)
    read = [(reading.try_next(), reading.waits_behind()) for _ in range(24)]
    assert [n // 16 for n, _ in read if n >= 16], "behind the first quarter, and not by reading all before them"
    assert len({n // 16 for n, _ in read}) == 4
    assert {before for n, before in read if n} == ({0} if key else {None})


def test_destinations_that_have_room_for_everything_are_asked_in_one_statement(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a start, all destinations are asked until there is nothing new to read."""
    reading, names = Reading(desk), [f"d{n}" for n in range(30)]
    read_parked, asked = reading.session.reading.read_parked, list[Sequence[str]]()

    def noting(cursors: Cursors, destinations: Sequence[str], limit: int) -> list[Row]:
        asked.append(destinations)
        return cast(list[Row], read_parked(cursors, destinations, limit))

    monkeypatch.setattr(reading.session.reading, "read_parked", noting)
    reading.loop.names, reading.loop.with_room = tuple(names), dict.fromkeys(names, 1)
    reading.reader.start_over(ALL)
    desk.emit(1)
    while not asked:
        reading.reader.read()
    assert asked == [sorted(names)]
