"""Measure line 12: what a hanging destination costs the one beside it, and what a million parked messages cost.

A steady stream goes to a healthy listener alone. Then the same stream is measured while a second destination, which
wants these and other messages, lets every attempt run into its deadline. The two runs alternate over the rounds. A
drain into the healthy listener is measured in the same way: with nothing else in the tables, and with a million
messages parked for the second destination.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import psycopg

from benchmarks.latency import percentile
from benchmarks.postgres import settle_down
from benchmarks.results import Result
from benchmarks.running import PAYLOAD, Bench, insert, ours, relay_at_work, say, wait_until
from benchmarks.steady import INSERT, Stream, latencies_ms

RATE, OTHERS_RATE = 1_000, 200
PERCENTILES = (50, 95, 99)
DEADLINE_S = 1.0
WARM_UP = -1  # the number of a message that is not part of the stream
ALONE, BESIDE = "alone", "beside one that hangs"
EMPTY, PARKED = "drain, nothing parked", "drain, a million parked for the other"
INSERT_OTHERS = INSERT.replace("'bench.message'", "'bench.other'")
PARK = (
    "WITH parked AS ("
    "    INSERT INTO outbox_message (id, type, source, data, state) "
    f"    SELECT outbox_uuid7(), 'bench.other', 'bench', {PAYLOAD}, 'held' FROM generate_series(1, {{count}}) "
    "    RETURNING id, shard, position) "
    "INSERT INTO outbox_delivery (message_id, destination, shard, position, state) "
    "SELECT id, 'hanging', shard, position, 'parked' FROM parked"
)
PAUSE = (
    "UPDATE outbox_destination SET state = 'paused', paused_by = 'operator', reason = 'for the benchmark' "
    "WHERE name = 'hanging'"
)


def beside_one_that_hangs(bench: Bench) -> Result:
    seconds, messages, parked = bench.for_s(30), bench.many(200_000), 5 * bench.many(200_000)
    result = bench.result(
        12,
        "Beside a destination that hangs",
        messages_per_second=RATE,
        of_others_per_second=OTHERS_RATE,
        seconds_each=seconds,
        deadline_s=DEADLINE_S,
        messages=messages,
        parked=parked,
    )
    for name, count in ((EMPTY, 0), (PARKED, parked)):
        _fill(bench, name, messages, count)
    for number in range(bench.rounds):
        for name in (ALONE, BESIDE):
            _stream(bench, result, name, seconds)
        for name in (EMPTY, PARKED):
            url = bench.scratch.create("round", _template(name))
            result.add(name, ours("drain", url, "--messages", messages, "--hanging", DEADLINE_S)["rate"])
            say(f"  round {number + 1}, {name}: {result.rounds[name][-1]:,.0f}/s")
    return result


def judge_isolation(result: Result) -> None:
    result.compare("rate, beside : alone", f"{BESIDE}: rate", f"{ALONE}: rate", 0.9)
    for each in PERCENTILES:
        name = f"p{each} latency, beside : alone"
        result.compare(name, f"{BESIDE}: p{each}", f"{ALONE}: p{each}", 1.1, at_most=True)
    result.compare("drain, a million parked : none", PARKED, EMPTY, 0.9)


def _stream(bench: Bench, result: Result, name: str, seconds: float) -> None:
    url = bench.outbox("isolation")
    settle_down(url)
    beside = ("--hanging", DEADLINE_S) if name == BESIDE else ()
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "calls"
        with relay_at_work(url, "--listener", "record", "--record", record, *beside) as relay:
            _warm_up(url, record)
            streams = [Stream(url, INSERT, RATE)]
            if beside:
                streams.append(Stream(url, INSERT_OTHERS, OTHERS_RATE))
            for stream in streams:
                stream.start()
            time.sleep(seconds)
            for stream in streams:
                stream.stop()
            time.sleep(1.5)
            cpu_s = relay.stop()[-1]["cpu_s"]
        found = latencies_ms(record, streams[0])
    result.add(f"{name}: rate", len(found) / seconds)
    for each in PERCENTILES:
        result.add(f"{name}: p{each}", percentile(found, each), "ms")
    result.add(f"{name}: processor time of the relay for a message", cpu_s / len(found) * 1e6, "µs")
    say(f"  {name}: {len(found) / seconds:,.0f}/s, p50 {percentile(found, 50):.1f}, p99 {percentile(found, 99):.1f} ms")


def _warm_up(url: str, record: Path) -> None:
    """Wait until the relay owns the shards and delivers."""
    with psycopg.connect(url) as connection:
        connection.execute(INSERT.format(first=WARM_UP, count=1))  # type: ignore[call-overload]
    wait_until(lambda: record.read_text().startswith(f"{WARM_UP} "))


def _template(name: str) -> str:
    return "parked" if name == PARKED else "empty"


def _fill(bench: Bench, name: str, messages: int, parked: int) -> None:
    """Fill the outbox. The second destination is registered and paused, so a drain does not wait for its deadline."""
    url = bench.outbox(_template(name))
    ours("drain", url, "--hanging", DEADLINE_S)
    with psycopg.connect(url) as connection:
        connection.execute(PAUSE)
        connection.execute(PARK.format(count=parked))  # type: ignore[call-overload]
        insert(url, messages, connection=connection)
    settle_down(url)
