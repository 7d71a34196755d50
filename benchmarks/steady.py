"""Measure lines 8 and 9: a steady stream, for an hour, and beside a transaction that stays open.

A producer commits messages 100 times a second. Ours are recorded by the listener; rivals count theirs. Reads and claims
are timed around the call that makes them, in the worker's process, and reported as medians of each second.
"""

from __future__ import annotations

import bisect
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.latency import percentile
from benchmarks.postgres import settle_down
from benchmarks.results import Result
from benchmarks.rivals import RIVALS, Missing, Rival
from benchmarks.running import PAYLOAD, Bench, Worker, relay_at_work, run_rival, say, working

TICKS = 100
HELD_RATE, SOAK_RATE = 1_500, 2_000
FREE, HELD = "neverlost, nothing held open", "neverlost, held open"
INSERT = (
    "INSERT INTO outbox_message (id, type, source, subject, data) "
    f"SELECT outbox_uuid7(), 'bench.message', 'bench', ({{first}} + n)::text, {PAYLOAD} "
    "FROM generate_series(0, {count} - 1) AS n"
)
SIZES = (
    "SELECT pg_table_size('outbox_message') / 1048576.0, pg_indexes_size('outbox_message') / 1048576.0, "
    "(SELECT coalesce(sum(pg_total_relation_size(relid)), 0) FROM pg_partition_tree('outbox_history')) / 1048576.0"
)


class Stream(threading.Thread):
    """Commits a fixed number of messages per second until it is stopped."""

    def __init__(self, url: str, insert: str, rate: int) -> None:
        super().__init__(daemon=True)
        self._url, self._insert, self._batch = url, insert, rate // TICKS
        self._over = threading.Event()
        self.committed = 0
        self.commits_at: list[float] = []

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            due_at = time.monotonic()
            while not self._over.is_set():
                due_at += 1 / TICKS
                time.sleep(max(due_at - time.monotonic(), 0))
                self.commits_at.append(time.monotonic())
                connection.execute(self._insert.format(first=self.committed, count=self._batch))  # type: ignore[call-overload]
                self.committed += self._batch

    def stop(self) -> None:
        self._over.set()
        self.join()

    def sent_at(self, number: int) -> float:
        """Return when the transaction of this message began."""
        return self.commits_at[number // self._batch]


class HoldingOpen:
    """A REPEATABLE READ transaction that has read something, like a `pg_dump`, and stays open until the block ends."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url)

    def __enter__(self) -> None:
        self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        self._connection.execute("SELECT count(*) FROM pg_class")

    def __exit__(self, *_: object) -> None:
        self._connection.close()


# -------------------------------------------------------------------------- line 9


def past_an_open_transaction(bench: Bench) -> Result:
    seconds = bench.for_s(300)
    result = bench.result(9, "A transaction held open", seconds_each=seconds, messages_per_second=HELD_RATE)
    result.axes = ("s", "ms a read or claim")
    for name in (FREE, HELD):
        _ours(bench, result, name, seconds)
    for rival in RIVALS:
        if rival.is_claiming:
            try:
                _rival(bench, result, rival, seconds)
            except Missing as error:
                result.missing.append(f"{rival.name}: {error}")
    result.ran["rounds"] = 1
    return result


def judge_open_transaction(result: Result) -> None:
    result.want(f"{HELD}: a read at the end", 1.5, at_most=True)
    result.compare("rate, held open : not", f"{HELD}: rate", f"{FREE}: rate", 0.9)
    for percent in ("p50", "p99"):
        name = f"{percent} latency, held open : not"
        result.compare(name, f"{HELD}: {percent}", f"{FREE}: {percent}", 1.1, at_most=True)


def _ours(bench: Bench, result: Result, name: str, seconds: float) -> None:
    url = bench.outbox("steady")
    settle_down(url)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "calls"
        with relay_at_work(url, "--listener", "record", "--record", record, "--tell") as relay:
            stream, told = _stream(url, INSERT, HELD_RATE, relay, seconds, held=name == HELD)
        found = latencies_ms(record, stream)
    result.add(f"{name}: rate", len(found) / seconds)
    result.add(f"{name}: p50", percentile(found, 50), "ms")
    result.add(f"{name}: p99", percentile(found, 99), "ms")
    _note_reads(result, name, "read", told)


def _rival(bench: Bench, result: Result, rival: Rival, seconds: float) -> None:
    bench.rivals.install(rival)
    url = bench.scratch.create("steady")
    run_rival(bench, rival, "prepare", url)
    with working(bench.rivals.command(rival, "work", url), bench.rivals.folder) as worker:
        stream, told = _stream(url, rival.insert, HELD_RATE, worker, seconds, held=True)
    name = f"{rival.name}, held open"
    result.add(f"{name}: rate", min(told[-1]["handled"], stream.committed) / seconds)
    _note_reads(result, name, "claim", told)


def _stream(
    url: str, insert: str, rate: int, worker: Worker, seconds: float, *, held: bool
) -> tuple[Stream, list[dict[str, Any]]]:
    stream = Stream(url, insert, rate)
    holding = HoldingOpen(url) if held else None
    if holding is not None:
        holding.__enter__()
    stream.start()
    time.sleep(seconds)
    stream.stop()
    time.sleep(1.5)
    told = [line for line in worker.stop() if "at" in line]
    if holding is not None:
        holding.__exit__(None)
    return stream, told


def _note_reads(result: Result, name: str, what: str, told: list[dict[str, Any]]) -> None:
    began_at = told[0]["at"]
    points = [(line["at"] - began_at, line["claim_ms"]) for line in told if line["claim_ms"] is not None]
    result.series[name] = points
    tail = sorted(ms for _, ms in points[-max(len(points) // 5, 5) :])
    result.add(f"{name}: a {what} at the end", percentile(tail, 50), "ms")
    say(f"  {name}: a {what} took {points[1][1]:.2f} ms at the beginning and {percentile(tail, 50):.2f} ms at the end")


def latencies_ms(record: Path, stream: Stream) -> list[float]:
    """Return the times from the beginning of each message's transaction to its call, sorted."""
    calls = ((int(number), float(at)) for number, at in map(str.split, record.read_text().splitlines()))
    return sorted((at - stream.sent_at(number)) * 1000 for number, at in calls if number >= 0)


# -------------------------------------------------------------------------- line 8


def for_an_hour(bench: Bench) -> Result:
    """Run the stream with a retention of zero: only that expires within an hour, and it is also the harder case."""
    seconds, every_s = bench.for_s(3600), bench.for_s(3600) / 60
    result = bench.result(8, "An hour's stream", seconds=seconds, messages_per_second=SOAK_RATE, retention_days=0)
    result.axes = ("s", "MiB; ms")
    url = bench.outbox("soak")
    names = ("outbox_message, MiB", "its indexes, MiB", "history, MiB")
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(url, autocommit=True) as connection:
        record = Path(folder) / "calls"
        with relay_at_work(url, "--listener", "record", "--record", record, "--retention-days", 0) as relay:
            stream = Stream(url, INSERT, SOAK_RATE)
            stream.start()
            began_at = time.monotonic()
            while (at := time.monotonic() - began_at) < seconds:
                for name, size in zip(names, connection.execute(SIZES).fetchone() or (), strict=True):
                    result.series.setdefault(name, []).append((at, float(size)))
                time.sleep(every_s)
            stream.stop()
            time.sleep(1.5)
            rss = relay.stop()[-1]["rss_mib"]
        _note_soak(result, record, stream, names, every_s)
    result.add("rate", stream.committed / seconds)
    result.add("RSS of the relay", rss, "MiB")
    result.ran["rounds"] = 1
    return result


def _note_soak(result: Result, record: Path, stream: Stream, names: tuple[str, ...], every_s: float) -> None:
    calls = sorted((stream.sent_at(int(number)), float(at)) for number, at in map(str.split, record.open()))
    sent = [sent_at for sent_at, _ in calls]
    for number in range(int((sent[-1] - sent[0]) // every_s)):
        low = bisect.bisect(sent, sent[0] + number * every_s)
        high = bisect.bisect(sent, sent[0] + (number + 1) * every_s)
        p99 = percentile(sorted((called - at) * 1000 for at, called in calls[low:high]), 99)
        result.series.setdefault("p99, ms", []).append((number * every_s, p99))
    for name in (*names, "p99, ms"):
        values = [y for _, y in result.series[name]]
        third = len(values) // 3
        for when, part in (("middle", values[third : 2 * third]), ("last", values[2 * third :])):
            result.add(f"{name.split(',')[0]}, {when} third", percentile(sorted(part), 50), name.split(", ")[1])


def judge_soak(result: Result) -> None:
    for name in ("outbox_message", "its indexes", "p99"):
        ratio = f"{name}, last third : middle third"
        result.compare(ratio, f"{name}, last third", f"{name}, middle third", 1.1, at_most=True)
