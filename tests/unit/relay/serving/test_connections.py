"""Which connection is closed when there is no room for another one."""

import asyncio
import logging
import socket
from time import monotonic

import pytest

from relay.serving.clients import Networks, client_of
from relay.serving.connections import Connections
from relay.serving.log_limit import LogLimit
from relay.serving.server import affordable, listen


class Caller:
    """A connection."""

    def __init__(self) -> None:
        self.is_cut_off = False

    def cut_off(self) -> None:
        self.is_cut_off = True


def arrived(connections: Connections, count: int, client: str) -> list[Caller]:
    callers = [Caller() for _ in range(count)]
    assert all(connections.arrive(each, client) for each in callers)
    return callers


def cut_off(callers: list[Caller]) -> list[bool]:
    return [each.is_cut_off for each in callers]


def test_where_one_client_has_too_many_its_own_that_waited_longest_makes_room() -> None:
    connections = Connections(limit=10, per_client=2)
    [other] = arrived(connections, 1, "b")
    callers = arrived(connections, 3, "a")
    assert (cut_off(callers), other.is_cut_off, len(connections)) == ([True, False, False], False, 3)


def test_where_there_are_too_many_the_one_that_waited_longest_of_all_makes_room() -> None:
    connections = Connections(limit=4, per_client=2)
    strangers = [*arrived(connections, 2, "a"), *arrived(connections, 2, "b")]
    [sender] = arrived(connections, 1, "sender")
    assert (cut_off(strangers), sender.is_cut_off, len(connections)) == ([True, False, False, False], False, 4)


def test_what_is_worked_on_is_never_cut_off_and_what_waits_again_is_the_last_to_go() -> None:
    connections = Connections(limit=2, per_client=2)
    first, second = arrived(connections, 2, "a")
    for each in (first, second):
        connections.work(each)
    assert not connections.arrive(Caller(), "a")
    assert not connections.arrive(Caller(), "b")
    connections.wait(second)
    connections.wait(first)
    arrived(connections, 1, "b")
    assert cut_off([first, second]) == [False, True]


def test_a_connection_that_has_left_is_counted_no_more() -> None:
    connections = Connections(limit=2, per_client=1)
    [caller] = arrived(connections, 1, "a")
    connections.leave(caller)
    connections.leave(caller)
    connections.wait(caller)
    assert len(connections) == 0
    arrived(connections, 1, "a")
    arrived(connections, 1, "b")
    assert not caller.is_cut_off


def test_a_proxy_has_as_many_as_there_is_room_for() -> None:
    connections = Connections(limit=5, per_client=1)
    callers = [Caller() for _ in range(6)]
    assert all(connections.arrive(each, "proxy", is_proxy=True) for each in callers)
    assert cut_off(callers) == [True, *[False] * 5]


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1:2:3", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_a_client_is_an_address_or_all_that_a_host_of_ipv6_may_have(address: str, client: str) -> None:
    assert client_of(address) == client


def test_proxies_are_known_by_their_address_not_by_their_neighbourhood() -> None:
    proxies = Networks(("2001:db8::5", "10.0.0.0/8"))
    assert [each in proxies for each in ("2001:db8::5", "2001:db8::6", "10.1.2.3", "11.0.0.1", "")] == [
        True,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("descriptors", [64, 128, 256, 1024, 20_000])
def test_there_are_always_descriptors_left(descriptors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (descriptors, descriptors))
    backlog, limit = affordable(1000, 64)
    assert 0 < limit <= 1000
    assert backlog + limit < descriptors - 32


def test_lines_of_one_kind_are_few_and_the_next_period_says_how_many_were_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("test.limit")
    log.addFilter(LogLimit("bad", lines=2))
    for n in range(10):
        log.warning("bad request\n%s", n)
        log.warning("something else")
    now = monotonic()
    monkeypatch.setattr("relay.serving.log_limit.monotonic", lambda: now + 60)
    log.warning("bad request\n%s", 10)
    said = [record.getMessage() for record in caplog.records if record.msg.startswith("bad")]
    assert said == ["bad request\n0", "bad request\n1", "bad request\n10 (8 more like this were not logged)"]
    assert sum(record.msg == "something else" for record in caplog.records) == 10


async def test_the_body_of_an_answer_does_not_wait_for_the_acknowledgement_of_its_head() -> None:
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def note(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listening = listen("127.0.0.1", 0)
    async with await asyncio.start_server(note, sock=listening):
        _reader, writer = await asyncio.open_connection(*listening.getsockname())
        assert await asyncio.wait_for(accepted, timeout=10)
        writer.close()
