"""Measure line 11: a drain and an `emit` on SQLite, and the memory that a larger backlog takes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from benchmarks.results import Result
from benchmarks.running import Bench, ours, say
from outbox import emit, emit_many
from relay.databases.database import Database
from relay.databases.migrations import upgrade

DATA = {"pad": "x" * 190}
FLOOR = "the floor: the bare loop"


def on_sqlite(bench: Bench) -> Result:
    messages = bench.many(100_000)
    result = bench.result(11, "SQLite", messages=messages, payload_bytes=200)
    for number in range(bench.rounds):
        with tempfile.TemporaryDirectory() as folder:
            result.add("emit, a transaction each", _emit(f"sqlite:///{Path(folder) / 'emit.db'}", bench.for_s(2)))
        for name, count in (("drain", messages), ("drain of a tenth", messages // 10)):
            with tempfile.TemporaryDirectory() as folder:
                url = f"sqlite:///{Path(folder) / 'outbox.db'}"
                filled_s = _fill(url, count)
                found = ours("drain", url, "--messages", count)
            result.add(name, found["rate"])
            result.add(f"{name}: RSS", found["rss_mib"], "MiB")
            if name == "drain":
                result.add("emit_many of 1,000", count / filled_s)
        with tempfile.TemporaryDirectory() as folder:
            _fill(url := f"sqlite:///{Path(folder) / 'outbox.db'}", messages)
            result.add(FLOOR, ours("floor", url, "--messages", messages)["rate"])
        say(
            f"  round {number + 1}: " + ", ".join(f"{name} {values[-1]:,.0f}" for name, values in result.rounds.items())
        )
    return result


def judge_sqlite(result: Result) -> None:
    result.want("drain", 20_000)
    result.compare("drain : the floor", "drain", FLOOR)
    name = "RSS : RSS with a tenth of the messages"
    result.compare(name, "drain: RSS", "drain of a tenth: RSS", 1.1, at_most=True)


def _fill(url: str, count: int) -> float:
    upgrade(url, only="outbox")
    engine = Database.parse(url).engine()
    began_at = time.perf_counter()
    for _ in range(0, count, 1000):
        with engine.begin() as connection:
            emit_many(connection, [("bench.message", DATA)] * min(count, 1000))
    took_s = time.perf_counter() - began_at
    engine.dispose()
    return took_s


def _emit(url: str, seconds: float) -> float:
    upgrade(url, only="outbox")
    engine = Database.parse(url).engine(poolclass=sa.StaticPool)
    began_at = time.perf_counter()
    done = 0
    while time.perf_counter() - began_at < seconds:
        with engine.begin() as connection:
            emit(connection, "bench.message", DATA)
        done += 1
    rate = done / (time.perf_counter() - began_at)
    engine.dispose()
    return rate
