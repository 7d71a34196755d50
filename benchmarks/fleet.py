"""Measure line 10: one to eight relay processes on a listener that takes 20 ms: rate, fair shares, and a hand-over.

It also measures several databases of one server, each with one relay: with that listener, and in a drain with a
listener that does nothing, where the processor is the limit.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg

from benchmarks.results import Result
from benchmarks.running import Bench, Worker, insert, ours, relay_at_work, say, wait_until

SIZES = (1, 2, 4, 8)
DATABASES = (2, 4)
DRAINED = (1, 2)
PER_RELAY = 16 / 0.02  # sixteen at a time, 20 ms each
SHARDS = 64
HELD = (
    "SELECT l.pid, count(*) FROM outbox_shard AS s JOIN outbox_relay AS r ON r.number = s.relay "
    "JOIN pg_locks AS l ON l.pid = r.backend_pid AND l.objid::bigint = r.presence "
    "WHERE l.locktype = 'advisory' GROUP BY 1"
)


def of_many_relays(bench: Bench) -> Result:
    seconds, messages = bench.for_s(5), bench.many(100_000)
    sizes = {"relays": list(SIZES), "databases": list(DATABASES)}
    result = bench.result(
        10, "Several relays, slow listener (20 ms)", **sizes, seconds_each=seconds, drained_messages=messages
    )
    for number in range(bench.rounds):
        for size in SIZES:
            _measure(bench, result, size, seconds)
            say(f"  round {number + 1}, {size}: {result.rounds[_name(size)][-1]:,.0f}/s")
        for count in DATABASES:
            _measure_databases(bench, result, count, seconds)
        for count in DRAINED:
            _drain(bench, result, count, messages)
    return result


def judge_fleet(result: Result) -> None:
    for size in SIZES[1:]:
        if result.has(_name(size), _name(1)):
            result.compare(f"{size} relays : {size} × 1 relay", _name(size), _name(1), 0.9)
            result.ratios[-1].value /= size
    for count in DATABASES:
        if result.has(_databases(count), _name(1)):
            result.compare(f"{count} databases : {count} × 1 relay", _databases(count), _name(1), 0.9)
            result.ratios[-1].value /= count
    if result.has(*map(_drained, DRAINED)):
        result.compare("2 databases drained at once : 1", _drained(2), _drained(1))
    result.want("furthest from the fair share", 1, at_most=True)
    for way in ("told to stop", "killed"):
        result.want(f"hand-over of a relay {way}", 2.0, at_most=True)


def _name(size: int) -> str:
    return "1 relay" if size == 1 else f"{size} relays"


def _measure(bench: Bench, result: Result, size: int, seconds: float) -> None:
    url = bench.outbox("fleet")
    with psycopg.connect(url, autocommit=True) as connection, ExitStack() as relays:
        workers = [relays.enter_context(relay_at_work(url, "--listener", "slow")) for _ in range(size)]
        wait_until(lambda: _is_shared(connection, size))
        result.add(
            "furthest from the fair share", max(abs(n - SHARDS / size) for n in _held(connection).values()), "shards"
        )
        insert(url, int(PER_RELAY * size * (seconds + 12)))
        result.add(_name(size), _rate([connection], seconds))
        if size > 2:
            _hand_over(result, connection, workers)


def _databases(count: int) -> str:
    return f"{count} databases, a relay each"


def _drained(count: int) -> str:
    return f"drain of {count} databases at once, a relay each" if count > 1 else "drain of 1 database"


def _measure_databases(bench: Bench, result: Result, count: int, seconds: float) -> None:
    urls = [bench.outbox(f"fleet_{number}") for number in range(count)]
    with ExitStack() as stack:
        connections = [stack.enter_context(psycopg.connect(url, autocommit=True)) for url in urls]
        for url, connection in zip(urls, connections, strict=True):
            stack.enter_context(relay_at_work(url, "--listener", "slow"))
            wait_until(lambda connection=connection: _is_shared(connection, 1))
            insert(url, int(PER_RELAY * (seconds + 12)))
        result.add(_databases(count), _rate(connections, seconds))


def _drain(bench: Bench, result: Result, count: int, messages: int) -> None:
    """Drain several databases at once with a listener that does nothing; return the rate of all together."""
    urls = [bench.outbox(f"fleet_{number}", messages) for number in range(count)]
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(lambda url: ours("drain", url, "--messages", messages), urls))
    result.add(_drained(count), sum(each["rate"] for each in found))


def _rate(connections: Sequence[psycopg.Connection[Any]], seconds: float) -> float:
    """Return how many messages a second were delivered in these databases, after a second of work."""
    time.sleep(1)
    before, began_at = sum(map(_delivered, connections)), time.perf_counter()
    time.sleep(seconds)
    after, ended_at = sum(map(_delivered, connections)), time.perf_counter()
    return (after - before) / (ended_at - began_at)


def _hand_over(result: Result, connection: psycopg.Connection[Any], workers: list[Worker]) -> None:
    """Stop one relay in order, and kill another, with work under way."""
    for way, number in (("told to stop", signal.SIGTERM), ("killed", signal.SIGKILL)):
        remaining = len(_held(connection)) - 1
        workers.pop().process.send_signal(number)
        taken_s = wait_until(lambda remaining=remaining: _is_held_by(_held(connection), remaining))
        result.add(f"hand-over of a relay {way}", taken_s, "s")
        wait_until(lambda remaining=remaining: _is_shared(connection, remaining))


def _held(connection: psycopg.Connection[Any]) -> Counter[int]:
    return Counter(dict(connection.execute(HELD).fetchall()))


def _is_held_by(held: Counter[int], size: int) -> bool:
    return len(held) == size and held.total() == SHARDS


def _is_shared(connection: psycopg.Connection[Any], size: int) -> bool:
    held = _held(connection)
    return _is_held_by(held, size) and max(held.values()) <= -(-SHARDS // size)


def _delivered(connection: psycopg.Connection[Any]) -> int:
    return connection.execute("SELECT count(*) FROM outbox_history").fetchone()[0]  # type: ignore[index]
