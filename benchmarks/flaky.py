"""Measure line 13: the rate at a destination that fails a share of its requests, or of its messages.

The endpoint speaks HTTP and has a latency; 32 requests are under way at once. *Random*: a share of the requests is
answered with 500. *Poison*: a share of the messages always fails. The ideal is the same round's rate at 0 %, times 1 -
share: each random failure costs a request, and each poison message is tried at least once. The rate is that of the
first nine tenths of the messages that are taken, so the backoff of the last ones does not count. It is compared with a
client that only sends.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import psycopg

from benchmarks.flaky_endpoint import is_poison
from benchmarks.results import Result
from benchmarks.running import ROOT, Bench, relay_at_work, say

CONCURRENCY = 32
LATENCIES_S = (0.01, 0.1)
SHARES = (0.01, 0.05, 0.1, 0.3)
WANTED = {0.01: 0.9, 0.05: 0.9, 0.1: 0.9, 0.3: 0.8}
OF_PLAIN = 0.95
FOR_S = 6.0  # how long a run takes at the ideal rate
INSERT = (
    "INSERT INTO outbox_message (id, type, source, data) SELECT outbox_uuid7(), 'bench.message', 'bench', "
    "json_build_object('n', n) FROM generate_series(1, {count}) AS n"
)
Endpoint = tuple[int, Any]


def at_flaky_destinations(bench: Bench) -> Result:
    seconds = bench.for_s(FOR_S)
    result = bench.result(
        13, "Flaky destinations", concurrency=CONCURRENCY, latencies_s=list(LATENCIES_S), seconds_each=seconds
    )
    for number in range(bench.rounds):
        for latency_s in LATENCIES_S:
            count = int(min(CONCURRENCY / latency_s, 1_500) * seconds)
            result.add(_name("a plain client", latency_s), asyncio.run(_plain(latency_s, count)))
            result.add(_name("0 %", latency_s), _relay(bench, latency_s, count, 0.0, poison=False))
            for share in SHARES:
                for kind in ("random", "poison"):
                    name = _name(f"{share:.0%} {kind}", latency_s)
                    result.add(name, _relay(bench, latency_s, count, share, poison=kind == "poison"))
                    say(f"  round {number + 1}, {name}: {result.rounds[name][-1]:,.0f}/s")
    return result


def judge_flaky(result: Result) -> None:
    for latency_s in LATENCIES_S:
        well = _name("0 %", latency_s)
        result.compare(f"{well} : a plain client", well, _name("a plain client", latency_s), OF_PLAIN)
        for share in SHARES:
            for kind in ("random", "poison"):
                name = _name(f"{share:.0%} {kind}", latency_s)
                result.compare(f"{name} : 0 % × {1 - share:.2f}", name, well, WANTED[share], scale=1 / (1 - share))


def _name(what: str, latency_s: float) -> str:
    return f"{what}, {latency_s * 1000:.0f} ms"


@contextmanager
def _endpoint(latency_s: float, want: int, share: float, *, poison: bool) -> Iterator[Endpoint]:
    command = [sys.executable, "-m", "benchmarks.flaky_endpoint", "--latency", str(latency_s), "--want", str(want)]
    command += ["--share", str(share), *(["--poison"] if poison else [])]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.stdout
    finally:
        process.kill()
        process.wait()


def _relay(bench: Bench, latency_s: float, count: int, share: float, *, poison: bool) -> float:
    want = sum(not is_poison(n, share) for n in range(1, count + 1)) if poison else count
    url = bench.outbox("flaky")
    with psycopg.connect(url) as connection:
        connection.execute(INSERT.format(count=count))  # type: ignore[call-overload]
    with _endpoint(latency_s, want, share, poison=poison) as (port, said):
        api = f"http://127.0.0.1:{port}/"
        with relay_at_work(url, "--api", api, "--concurrency", CONCURRENCY):
            return float(json.loads(said.readline())["rate"])


async def _plain(latency_s: float, count: int) -> float:
    """Return the rate of a client that only sends, with the same concurrency."""
    with _endpoint(latency_s, count, 0.0, poison=False) as (port, said):
        numbers = iter(range(1, count + 1))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:

            async def work() -> None:
                for n in numbers:
                    async with session.post(f"http://127.0.0.1:{port}/", json={"n": n}) as response:
                        await response.read()

            await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
        return float(json.loads(said.readline())["rate"])
