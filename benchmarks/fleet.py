"""Line 10: one to eight relay processes on a listener that takes 20 ms: rate, fair shares, and a hand-over."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import psycopg

from benchmarks.results import Result
from benchmarks.running import Bench, Worker, insert, relay_at_work, say, wait_until

SIZES = (1, 2, 4, 8)
PER_RELAY = 16 / 0.02  # sixteen at a time, 20 ms each
SHARDS = 64
HELD = (
    "SELECT pid, count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND objid < 64 AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) GROUP BY pid"
)


def of_many_relays(bench: Bench) -> Result:
    seconds = bench.for_s(5)
    result = bench.result(10, "Several relays, slow listener (20 ms)", relays=list(SIZES), seconds_each=seconds)
    for number in range(bench.rounds):
        for size in SIZES:
            _measure(bench, result, size, seconds)
            say(f"  round {number + 1}, {size}: {result.rounds[_name(size)][-1]:,.0f}/s")
    return result


def judge_fleet(result: Result) -> None:
    for size in SIZES[1:]:
        if result.has(_name(size), _name(1)):
            result.compare(f"{size} relays : {size} × 1 relay", _name(size), _name(1), 0.9)
            result.ratios[-1].value /= size
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
        time.sleep(1)
        before, began_at = _delivered(connection), time.perf_counter()
        time.sleep(seconds)
        after, ended_at = _delivered(connection), time.perf_counter()
        result.add(_name(size), (after - before) / (ended_at - began_at))
        if size > 2:
            _hand_over(result, connection, workers)


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
