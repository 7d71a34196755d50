"""Measure deliveries per second over HTTP, to a trivial endpoint in another process on this machine.

    python -m benchmarks.http

All contestants run in turn, with the same body, headers and number of connections:

    relay      our relay: reads, signs, sends, settles; everything switched on
    batches    the same with batches of 100
    (a)        the same loop on a plain httpx.AsyncClient, without any database
    (b)        built httpx requests handed straight to the httpx-aiohttp transport, one deadline around each exchange,
               as many connections, the same body and headers (made beforehand); without any database
    our own    our send path alone (headers, signature, deadline), without any database

Targets: relay at least 8 x (a) and 0.75 x (b), batches at least 3 x relay. The exit code is 1 if a target is missed.

The database is ``--database-url``, by default a temporary PostgreSQL with fsync (from the ``test`` extra).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
from httpx_aiohttp import AiohttpTransport
from rich.console import Console
from rich.table import Table

from benchmarks import delivering
from benchmarks.postgres import database
from outbox import Message
from outbox.checks.ids import new_id
from relay.databases.migrations import upgrade
from relay.decide.outcome import TAKEN
from relay.destinations.http.destination import HttpDestination
from relay.destinations.http.settings import HttpSettings
from relay.observe.logging import configure
from relay.relay import Relay
from relay.settings import Settings

TYPE = "extraction.completed"
SECRET = "0123456789abcdef" * 4
DEADLINE_S = 10.0
A, B, OWN = "(a) a loop on httpx.AsyncClient", "(b) httpx requests on the bare transport", "our send path alone"
RELAY, BATCHES = "relay", "relay, batches of 100"
RATIOS = ((RELAY, A, 8.0), (RELAY, B, 0.75), (RELAY, OWN, None), (BATCHES, RELAY, 3.0))
Rounds = dict[str, list[float]]


def main() -> int:
    options = _options()
    configure(level="error")
    with _endpoint() as port, database(options.database_url) as database_url:
        upgrade(database_url)
        _as_a_relay_process()
        url = f"http://127.0.0.1:{port}/extraction/internal/completed"
        rounds = asyncio.run(_compare(options, url, database_url))
    if options.json:
        print(json.dumps(rounds))
        return 0
    return _report({name: statistics.median(found) for name, found in rounds.items()}, rounds)


def _as_a_relay_process() -> None:
    """Tune the interpreter as `outbox relay` does, for all contestants alike."""
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _options() -> argparse.Namespace:
    parser = delivering.parser(__doc__, messages=10_000, per_round="; of (a) a tenth")
    parser.add_argument("--concurrency", type=int, default=32)
    return parser.parse_args()


@contextmanager
def _endpoint() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.endpoint"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


async def _compare(options: argparse.Namespace, url: str, database_url: str) -> Rounds:
    count, concurrency = options.messages, options.concurrency
    single = HttpSettings.model_validate({"url": url, "secret": SECRET, "concurrency": concurrency})
    batches = single.model_copy(update={"batch": 100, "concurrency": 4})
    contestants: dict[str, Callable[[], Awaitable[float]]] = {
        A: lambda: _plain(url, count // 10, concurrency),
        B: lambda: _bare(url, count, concurrency),
        OWN: lambda: _own(single, count),
        RELAY: lambda: _relay(single, database_url, count),
        BATCHES: lambda: _relay(batches, database_url, 2 * count),
    }
    rounds: Rounds = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, run in contestants.items():
            rounds[name].append(await run())
    return rounds


# ------------------------------------------------------------------ the contestants


async def _timed(count: int, concurrency: int, send: Callable[[Message], Awaitable[None]]) -> float:
    """Return the calls per second of `concurrency` workers, each of which takes the next message after its last one."""
    messages = iter([_message() for _ in range(count)])

    async def work() -> None:
        for message in messages:
            await send(message)

    began_at = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return count / (time.perf_counter() - began_at)


async def _plain(url: str, count: int, concurrency: int) -> float:
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(limits=limits, trust_env=False) as client:

        async def send(message: Message) -> None:
            response = await client.post(url, content=message.body, headers=_headers(message))
            assert response.status_code == 200

        return await _timed(count, concurrency, send)


async def _bare(url: str, count: int, concurrency: int) -> float:
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with AiohttpTransport(limits=limits) as transport:

        async def send(message: Message) -> None:
            request = httpx.Request("POST", url, content=message.body, headers=_headers(message))
            async with asyncio.timeout(DEADLINE_S):
                response = await transport.handle_async_request(request)
                await response.aread()
                await response.aclose()
            assert response.status_code == 200

        return await _timed(count, concurrency, send)


async def _own(settings: HttpSettings, count: int) -> float:
    destination = HttpDestination("api", settings)
    await destination.start()

    async def send(message: Message) -> None:
        assert await destination.send(message) is TAKEN

    try:
        return await _timed(count, settings.concurrency, send)
    finally:
        await destination.close()


async def _relay(api: HttpSettings, database_url: str, count: int) -> float:
    """Return the messages per second of a running relay, from the commit until the last message is settled."""
    settings = Settings(database_url=database_url, destinations={"api": api}, health_port=0)
    async with Relay(settings, apply=True) as relay:
        await relay.drain(look=False)
        began_at = await asyncio.to_thread(delivering.fill, database_url, TYPE, count)
        await delivering.drained(relay, count)
        return count / (time.perf_counter() - began_at)


def _message() -> Message:
    return Message(new_id(), TYPE, "outbox", None, None, json.dumps(delivering.DATA), "{}", datetime.now(UTC))


def _headers(message: Message) -> dict[str, str]:
    """Return headers as many and as long as ours, made in advance, so their cost is not charged to httpx."""
    return {
        "content-type": "application/json",
        "user-agent": "neverlost",
        "x-internal-secret": SECRET,
        "idempotency-key": f'"{message.id}"',
        "ce-specversion": "1.0",
        "ce-id": message.id,
        "ce-type": TYPE,
        "ce-source": "outbox",
        "ce-time": "2026-01-01T10:00:00.123456+00:00",
        "webhook-id": message.id,
        "webhook-timestamp": "1767261600",
        "webhook-signature": "v1,qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo=",
    }


# -------------------------------------------------------------------------- report


def _report(medians: dict[str, float], rounds: Rounds) -> int:
    table = Table("", "median", "lowest", "highest", title="Deliveries per second over HTTP")
    for name, found in rounds.items():
        table.add_row(name, *(f"{number:,.0f}" for number in (medians[name], min(found), max(found))))
    second = Table("", "ratio", "wanted")
    ratios = [(f"{over} : {under}", medians[over] / medians[under], wanted) for over, under, wanted in RATIOS]
    for name, ratio, wanted in ratios:
        second.add_row(name, f"{ratio:.2f}", "" if wanted is None else f"{wanted:g}")
    console = Console()
    console.print(table, second)
    return 0 if all(wanted is None or ratio >= wanted for _, ratio, wanted in ratios) else 1


if __name__ == "__main__":
    sys.exit(main())
