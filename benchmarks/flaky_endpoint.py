"""Run, in a separate process, an HTTP endpoint that waits before each answer and fails a share of its requests.

    python -m benchmarks.flaky_endpoint --want 3000 --share 0.1 --latency 0.1 [--poison]

It prints its port, and the rate once it has taken nine tenths of the messages that it wants.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time

NUMBER = re.compile(rb'"n" *: *(\d+)')
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
TAKEN = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 5\r\n\r\nflaky"
SCATTER = 2_654_435_761  # scatters the poison numbers


def is_poison(number: int, share: float) -> bool:
    """Return whether this message always fails, if this share of the messages does."""
    return number * SCATTER % 1000 / 1000 < share


class Counter:
    """Counts what was taken, and when."""

    def __init__(self, want: int) -> None:
        self.want = want
        self.taken: set[int] = set()
        self.calls = 0
        self._began_at = 0.0

    def begin(self) -> None:
        self.calls += 1
        self._began_at = self._began_at or time.perf_counter()

    def take(self, number: int) -> None:
        self.taken.add(number)
        if len(self.taken) == int(self.want * 0.9):
            rate = len(self.taken) / (time.perf_counter() - self._began_at)
            print(json.dumps({"rate": rate, "calls": self.calls}), flush=True)


class Flaky(asyncio.Protocol):
    """One connection."""

    def __init__(self, options: argparse.Namespace, counter: Counter) -> None:
        self._options, self._counter = options, counter
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        length = LENGTH.search(self._received, 0, head) if head >= 0 else None
        if length is None or len(self._received) < head + 4 + int(length[1]):
            return
        found = NUMBER.search(self._received, head)
        number = int(found[1]) if found is not None else 0
        self._received.clear()
        self._counter.begin()
        asyncio.get_running_loop().call_later(self._options.latency, self._answer, number)

    def _answer(self, number: int) -> None:
        share = self._options.share
        fails = is_poison(number, share) if self._options.poison else random.random() < share
        if not fails:
            self._counter.take(number)
        assert self._transport is not None
        self._transport.write(FAILED if fails else TAKEN)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--want", type=int, required=True)
    parser.add_argument("--share", type=float, default=0.0)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--poison", action="store_true")
    options = parser.parse_args()
    random.seed(5)
    counter = Counter(options.want)
    server = await asyncio.get_running_loop().create_server(lambda: Flaky(options, counter), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
