"""Run our side of every line, in a separate process that the suite starts.

    python -m benchmarks.ours drain|floor|poll|work DATABASE_URL [--messages N] [--listener nothing|slow|…] …

`work` is a relay that runs until it is told to stop; all other actions print one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import resource
import signal
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

import relay.relay
from outbox import Message
from outbox_cli.commands.run.relay import tune_interpreter
from relay.databases.postgresql.store.reading import Reading
from relay.databases.store.contract import Session
from relay.databases.store.rows import Cursors
from relay.destinations.http.settings import HttpSettings
from relay.destinations.listener.settings import ListenerSettings
from relay.observe.metrics import Metrics
from relay.owner.startup import open_store
from relay.relay import Relay
from relay.settings import Settings

SLOW_S = 0.02
PAGE = 2000


def main() -> None:
    options = _options()
    logging.disable(logging.WARNING)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    tune_interpreter()
    found = ACTIONS[options.action](options)
    used = {"rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "cpu_s": time.process_time()}
    print(json.dumps({**found, **used}), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("url")
    parser.add_argument("--messages", type=int, default=0)
    parser.add_argument("--listener", choices=("nothing", "slow", "record", "steady"), default="nothing")
    parser.add_argument("--record", type=Path, help="where the recording listener writes")
    parser.add_argument("--tell", action="store_true", help="print each second what a read took, as rivals do")
    parser.add_argument("--poll", action="store_true", help="after the drain, time the idle polls of a second")
    parser.add_argument("--uncounted", action="store_true", help="count nothing for metrics")
    parser.add_argument("--concurrency", type=int)
    parser.add_argument("--retention-days", type=int, default=7)
    parser.add_argument("--api", help="deliver over HTTP, to this URL, and not to a listener")
    parser.add_argument("--hanging", type=float, help="beside a destination that hangs until this deadline, in seconds")
    return parser.parse_args()


# ------------------------------------------------------------------------- actions


class Uncounted(Metrics):
    """Metrics that the hot path does not count."""

    def _nothing(self, *_: object, **__: object) -> None: ...

    read = emitted = settled = count = failed = delivered = watch = _nothing  # type: ignore[assignment]

    def destination(self, name: str) -> Any:
        return self


def _floor(options: argparse.Namespace) -> dict[str, float]:
    """Measure one thread that reads a page and settles it with the relay's statements: no owner, loop or listener."""
    session, cursors = _session(options.url)
    settled, reading_s = 0, 0.0
    began_at, cpu_before_s = time.perf_counter(), time.process_time()
    while settled < options.messages:
        read_at = time.perf_counter()
        page = session.reading.read_ready(cursors, PAGE)
        reading_s += time.perf_counter() - read_at
        settled += session.settling.settle_plain(page.messages, durable=False)()
    took_s, cpu_s = time.perf_counter() - began_at, time.process_time() - cpu_before_s
    session.close()
    each_us = 1e6 / settled
    return {
        "rate": settled / took_s,
        "read_us": reading_s * each_us,
        "settle_us": (took_s - reading_s) * each_us,
        "cpu_us": cpu_s * each_us,
    }


def _poll(options: argparse.Namespace) -> dict[str, float]:
    """Measure a poll of all shards in a new session: the median of 300."""
    session, cursors = _session(options.url)
    session.reading.read_ready(cursors, PAGE)
    times_s = []
    for _ in range(300):
        began_at = time.perf_counter()
        session.reading.read_ready(cursors, PAGE)
        times_s.append(time.perf_counter() - began_at)
    session.close()
    return {"poll_ms": statistics.median(times_s) * 1000}


def _session(url: str) -> tuple[Session, Cursors]:
    session = open_store(Settings(database_url=url, lease_s=60)).open("bench")  # it may idle between two rounds
    cursors = Cursors()
    cursors.ready = dict.fromkeys((each.shard for each in session.ownership.take(range(64))), 0)
    return session, cursors


def _drain(options: argparse.Namespace) -> dict[str, float]:
    """Measure a drain, from the start of the relay until the last message is settled."""
    taken = 0

    async def listener(message: Message) -> None:
        nonlocal taken
        taken += 1

    async def drain() -> dict[str, float]:
        if options.uncounted:
            relay.relay.Metrics = Uncounted  # type: ignore[misc]
        async with Relay(_settings(options, listener)) as running:
            began_at, cpu_before_s = time.perf_counter(), time.process_time()
            await running.drain(look=False)
            took_s, cpu_s = time.perf_counter() - began_at, time.process_time() - cpu_before_s
            return {
                "rate": options.messages / took_s,
                "cpu_us": cpu_s / max(options.messages, 1) * 1e6,
                "poll_ms": await _idle_poll_ms() if options.poll else 0.0,
            }

    found = asyncio.run(drain())
    assert taken == options.messages, f"{taken} of {options.messages} were delivered"
    return found


def _work(options: argparse.Namespace) -> dict[str, float]:
    async def work() -> None:
        async with Relay(_settings(options, LISTENERS[options.listener](options))) as relay:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, relay.stop)
            print(json.dumps({"started": relay.id}), flush=True)
            teller = asyncio.create_task(_tell()) if options.tell else None
            await relay.wait()
            if teller is not None:
                teller.cancel()

    asyncio.run(work())
    return {}


async def _idle_poll_ms() -> float:
    """Return the median of a second's polls by the relay that has just drained."""
    times_s = _timed_reads()
    await asyncio.sleep(1)
    return statistics.median(times_s) * 1000


def _timed_reads() -> list[float]:
    """Record the time of each read from now on."""
    times_s: list[float] = []
    read_ready = Reading.read_ready

    def timed(*arguments: Any) -> Any:
        began_at = time.perf_counter()
        page = read_ready(*arguments)
        times_s.append(time.perf_counter() - began_at)
        return page

    Reading.read_ready = timed  # type: ignore[method-assign]
    return times_s


async def _tell() -> None:
    """Print the times of reads every second, forever."""
    times_s = _timed_reads()
    while True:
        await asyncio.sleep(1)
        claim_ms = statistics.median(times_s) * 1000 if times_s else None
        times_s.clear()
        print(json.dumps({"at": time.monotonic(), "claim_ms": claim_ms}), flush=True)


def _settings(options: argparse.Namespace, listener: Callable[..., Awaitable[None]]) -> Settings:
    destination: dict[str, Any] = {"listener": listener, "timeout_s": None}
    if options.concurrency:
        destination["concurrency"] = options.concurrency
    destinations: dict[str, Any] = {"listener": ListenerSettings(**destination)}
    if options.api is not None:
        destinations = {"api": HttpSettings(url=options.api, secret="s" * 64, concurrency=options.concurrency or 32)}
    if options.hanging is not None:
        destinations["listener"] = ListenerSettings(**destination, events=["bench.message"])
        destinations["hanging"] = ListenerSettings(listener=_hang, timeout_s=options.hanging)
    return Settings(
        database_url=options.url,
        destinations=destinations,
        retention_days=options.retention_days,
        health_port=0,
    )


# ----------------------------------------------------------------------- listeners


def _nothing(options: argparse.Namespace) -> Callable[[Message], Awaitable[None]]:
    async def nothing(message: Message) -> None:
        pass

    return nothing


def _slow(options: argparse.Namespace) -> Callable[[Message], Awaitable[None]]:
    async def slow(message: Message) -> None:
        await asyncio.sleep(SLOW_S)

    return slow


def _record(options: argparse.Namespace) -> Callable[[Message], Awaitable[None]]:
    """Writes the subject and when it was called, by the clock that all processes of a machine share."""
    file = os.open(options.record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def record(message: Message) -> None:
        os.write(file, f"{message.subject} {time.monotonic()}\n".encode())

    return record


def _steady(options: argparse.Namespace) -> Callable[[Message], Awaitable[None]]:
    """Writes the same, and takes its time."""
    record = _record(options)

    async def steady(message: Message) -> None:
        await asyncio.sleep(SLOW_S)
        await record(message)

    return steady


async def _hang(message: Message) -> None:
    await asyncio.Event().wait()


LISTENERS = {"nothing": _nothing, "slow": _slow, "record": _record, "steady": _steady}
ACTIONS = {"drain": _drain, "floor": _floor, "poll": _poll, "work": _work}

if __name__ == "__main__":
    main()
