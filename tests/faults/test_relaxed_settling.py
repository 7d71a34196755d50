"""Messages settled without waiting for the disk are settled once more if the server has forgotten that."""

from collections import deque
from time import monotonic
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from support.databases import Database
from support.desk import Desk, everything

from relay.databases.migrations import upgrade
from relay.decide.verdict import DELIVERED, PARKED, Verdict, retry
from relay.owner.settler import Settler, Unconfirmed
from relay.seam.entry import Entry


class Named(NamedTuple):
    """A destination, as far as an entry knows it."""

    name: str


A, B = lanes = (Named("a"), Named("b"))


@pytest.fixture
def server(private_postgres):
    server = private_postgres({"wal_writer_delay": "10s", "autovacuum": "off"})
    upgrade(server.url())
    return server


@pytest.fixture
def desk(server, monkeypatch):
    monkeypatch.setattr("relay.owner.settler.DURABLE_EVERY_S", 1e9)
    desk = Desk(Database("postgres", server.url()))
    desk.emit(5)
    yield desk
    for session in desk.sessions:
        session.close()
    desk.database.dispose()


def settler(session: Any, epoch: int, unconfirmed: Unconfirmed) -> Settler:
    reader: Any = SimpleNamespace(note_exceptions=lambda *_: None, reread=lambda _: None)
    seam: Any = SimpleNamespace(tell=SimpleNamespace(forget=lambda _: None))
    return Settler(session.settling, epoch, reader, seam, unconfirmed=unconfirmed, clock=monotonic)


def taken_by_a(session: Any, of_b: Verdict) -> deque[Entry]:
    """Return all messages, as read and as ruled on."""
    entries = [Entry(row, lanes, epoch=1) for row in session.reading.read_ready(everything(), 100).messages]
    for entry in entries:
        entry.decide("a", DELIVERED)
        entry.decide("b", of_b)
    return deque(entries)


def taken_by_b(session: Any) -> deque[Entry]:
    """Return the same messages, as read back and taken."""
    cursors = everything()
    cursors.exhausted.update(cursors.ready)
    entries = [Entry.of_delivery(row, B, 1) for row in session.reading.read_parked(cursors, ["b"], 100)]
    assert len(entries) == 5
    for entry in entries:
        entry.decide("b", DELIVERED)
    return deque(entries)


@pytest.mark.parametrize("is_read_back", [False, True])
def test_what_one_destination_took_while_another_was_down_outlives_a_crash_of_the_server(server, desk, is_read_back):
    unconfirmed: Unconfirmed = []
    session = desk.owner()
    first = settler(session, 1, unconfirmed)
    first.settle(deque(), taken_by_a(session, PARKED), 10)
    if is_read_back:
        first.settle(deque(), taken_by_b(session), 10)
    crash(server, desk)
    assert (set(desk.states().values()), desk.deliveries()) == ({"ready"}, {}), "the server has not forgotten it"
    settler(desk.open("relay-2"), 2, unconfirmed).settle_again()
    assert len(desk.history()) == (5 if is_read_back else 0)
    assert sorted(desk.deliveries().values()) == ([] if is_read_back else ["delivered"] * 5 + ["parked"] * 5)
    assert unconfirmed == []


def test_what_was_charged_waits_for_the_disk(server, desk):
    unconfirmed: Unconfirmed = []
    session = desk.owner()
    settler(session, 1, unconfirmed).settle(deque(), taken_by_a(session, retry(60.0, "it failed")), 10)
    crash(server, desk)
    assert sorted(desk.deliveries().values()) == ["delivered"] * 5 + ["retry"] * 5
    assert unconfirmed == []


def crash(server, desk: Desk) -> None:
    server.restart("immediate")  # sessions are open still: an orderly end waits for the disk
    desk.database.dispose()
    for session in desk.sessions:
        session.close()
