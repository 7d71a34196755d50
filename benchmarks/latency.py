"""Measure line 5: the time from the commit to the listener's call, at a steady 100 messages/s and from sleep.

Sender and relay are processes on one machine and read the same clock. The time runs from just before COMMIT is sent, so
it includes the commit's flush to disk; the time from the commit's return is shown beside it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from benchmarks.results import Result
from benchmarks.running import Bench, relay_at_work, say, wait_until
from outbox import emit

RATE = 100
ASLEEP_AFTER_S = 2.5  # a relay with nothing to do goes to sleep after 1.5 s
BUSY, IDLE = "at 100/s", "from idle"


def from_commit_to_listener(bench: Bench) -> Result:
    count, idle_count = int(bench.for_s(10) * RATE), int(max(bench.for_s(10) * 1.2, 3))
    result = bench.result(
        5, "Commit to listener", messages_a_round=count, from_idle_a_round=idle_count, messages_per_second=RATE
    )
    url = bench.outbox("latency")
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "calls"
        with relay_at_work(url, "--listener", "record", "--record", record), sender(url) as send:
            send("warm-up")
            wait_until(lambda: record.exists() and "warm-up" in record.read_text())
            for number in range(bench.rounds):
                for name, pause_s, many in ((BUSY, 1 / RATE, count), (IDLE, ASLEEP_AFTER_S, idle_count)):
                    sent = _send(send, f"{number}-{name[:4]}", many, pause_s)
                    _note(result, name, _latencies_ms(record, sent))
    return result


def judge_latency(result: Result) -> None:
    result.want(f"{BUSY}, p50", 5.0, at_most=True)
    result.want(f"{BUSY}, p99", 20.0, at_most=True)
    result.want(f"{IDLE}, p99", 20.0, at_most=True)


Sent = dict[str, tuple[float, float]]


@contextmanager
def sender(url: str) -> Iterator:
    """Yield a function that sends one message in a transaction, and returns when its commit began and ended."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:

        def send(subject: str) -> tuple[float, float]:
            with connection.begin() as transaction:
                emit(connection, "bench.latency", {"pad": "x" * 190}, subject=subject)
                began_at = time.monotonic()
                transaction.commit()
                return began_at, time.monotonic()

        yield send
    engine.dispose()


def _send(send, prefix: str, count: int, pause_s: float) -> Sent:
    sent: Sent = {}
    due_at = time.monotonic()
    for number in range(count):
        due_at += pause_s
        time.sleep(max(due_at - time.monotonic(), 0))
        sent[f"{prefix}-{number}".replace(" ", "_")] = send(f"{prefix}-{number}".replace(" ", "_"))
    return sent


def _latencies_ms(record: Path, sent: Sent) -> tuple[list[float], list[float]]:
    """Return the times from the beginning and from the end of each commit to the call, sorted, in ms."""
    called: dict[str, float] = {}

    def all_called() -> bool:
        called.update((subject, float(at)) for subject, at in map(str.split, record.read_text().splitlines()))
        return sent.keys() <= called.keys()

    wait_until(all_called, every_s=0.1)
    whole = sorted((called[subject] - began_at) * 1000 for subject, (began_at, _) in sent.items())
    rest = sorted((called[subject] - ended_at) * 1000 for subject, (_, ended_at) in sent.items())
    return whole, rest


def _note(result: Result, name: str, latencies_ms: tuple[list[float], list[float]]) -> None:
    whole, rest = latencies_ms
    result.add(f"{name}, p50", percentile(whole, 50), "ms")
    result.add(f"{name}, p99", percentile(whole, 99), "ms")
    result.add(f"{name}, worst", whole[-1], "ms")
    result.add(f"{name}, p50 after the commit returned", statistics.median(rest), "ms")
    say(f"  {name}: p50 {percentile(whole, 50):.1f} ms, p99 {percentile(whole, 99):.1f} ms, worst {whole[-1]:.1f} ms")


def percentile(ordered: list[float], percent: float) -> float:
    """Return a percentile: the smallest value that this percentage of the values does not exceed."""
    return ordered[max(-(-len(ordered) * percent // 100), 1).__int__() - 1]
