"""A rate limit: one budget for all relays, which does not affect other destinations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any

import pytest
from support.databases import Database
from support.receivers import Receiver, Request, answering
from support.waiting import eventually_async

from outbox import emit
from relay.admin.access.queries import snapshot
from relay.admin.destinations.listing import list_destinations
from relay.admin.status import status
from relay.delivery.admission import VALID_S
from relay.destinations.http.settings import HttpSettings
from relay.relay import Relay
from relay.settings import Settings

SECRET = "a-secret-of-a-limit-0123456789abcdef0123456789"
PER_S, BURST = 60.0, 12
LIMIT = {"rate": "60/s", "burst": BURST}


class Clocked(Receiver):
    """A receiver that notes when each request came."""

    def __init__(self) -> None:
        self.times: list[float] = []
        super().__init__(self._note)

    async def _note(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.times.append(monotonic())
        await answering()(request, writer)

    @property
    def most_above_the_limit(self) -> float:
        """Return the most requests above the limit in any interval that begins and ends with a request."""
        ends = list(enumerate(self.times))
        return max(n - m + 1 - BURST - PER_S * (end - start + VALID_S) for m, start in ends for n, end in ends[m:])


@pytest.fixture
async def api() -> AsyncIterator[Clocked]:
    async with Clocked() as receiver:
        yield receiver


def write(database: Database, count: int) -> None:
    with database.engine.begin() as connection:
        for n in range(count):
            emit(connection, "extraction.completed", {"contentId": f"c-{n}"})


def limited(database: Database, api: Receiver, others: Mapping[str, Receiver] | None = None, **http: Any) -> Settings:
    options = {"secret": SECRET, "backoff_s": 0.05, "backoff_max_s": 0.2}
    destinations = {
        name: HttpSettings(url=f"http://127.0.0.1:{each.port}/", **options) for name, each in (others or {}).items()
    }
    destinations["api"] = HttpSettings(url=f"http://127.0.0.1:{api.port}/", **{**options, **LIMIT, **http})
    return Settings(database_url=database.url, destinations=destinations, health_port=0, quiet_s=0.2, beat_s=0.2)


async def test_two_relays_together_keep_to_one_limit(postgres_database: Database, api: Clocked) -> None:
    settings = limited(postgres_database, api)
    async with AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(Relay(settings)) for _ in range(2)]
        await eventually_async(lambda: [len(each._running.owner.shards) for each in relays] == [32, 32], deadline_s=30)  # type: ignore[union-attr]
        write(postgres_database, 150)
        await eventually_async(lambda: len(api.times) == 150, deadline_s=60)
    assert api.most_above_the_limit <= 0


async def test_a_drain_waits_for_the_limit(database: Database, api: Clocked) -> None:
    write(database, 60)
    async with Relay(limited(database, api)) as relay:
        drained = await relay.drain()
    assert (drained.delivered, len(api.times)) == (60, 60)
    assert api.most_above_the_limit <= 0


async def test_relays_one_after_the_other_share_the_budget_too(database: Database, api: Clocked) -> None:
    """A timer may start one drain after another."""
    for _ in range(3):
        write(database, BURST)
        async with Relay(limited(database, api)) as relay:
            await relay.drain()
    assert len(api.times) == 3 * BURST
    assert api.most_above_the_limit <= 0


async def test_batches_count_by_the_message(database: Database) -> None:
    sizes: list[int] = []

    async def note(request: Request, writer: asyncio.StreamWriter) -> None:
        sizes.append(request.body.count(b"contentId"))
        await answering()(request, writer)

    async with Receiver(note) as receiver:
        write(database, 40)
        settings = limited(database, receiver, rate="1/h", burst=30, batch=100)
        async with Relay(settings):
            await eventually_async(lambda: sum(sizes) == 30)
            await eventually_async(lambda: waiting(database)["api"] == 10)
    assert sum(sizes) == 30


async def test_a_destination_with_a_limit_does_not_slow_another(database: Database, api: Clocked) -> None:
    async with Receiver() as other:
        write(database, 500)
        settings = limited(database, api, {"other": other}, rate="1/h", burst=5)
        async with Relay(settings.model_copy(update={"window": 100, "page_size": 50})):
            await eventually_async(lambda: waiting(database) == {"api": 495, "other": 0}, deadline_s=60)
    assert len(api.times) == 5


def waiting(database: Database) -> dict[str, int]:
    with snapshot(database.engine) as connection:
        return {name: each.waiting for name, each in status(connection).destinations.items()}


async def test_an_operator_sees_the_limit_until_a_relay_starts_without_it(database: Database, api: Clocked) -> None:
    async with Relay(limited(database, api)):
        assert seen(database) == ("healthy, at most 60/s", "healthy, at most 60/s")
    async with Relay(limited(database, api, rate="90/min", burst=2)):
        assert seen(database) == ("healthy, at most 90/min", "healthy, at most 90/min")
    async with Relay(limited(database, api, rate=None, burst=None)):
        assert seen(database) == ("healthy", "healthy")


def seen(database: Database) -> tuple[str, str]:
    """Return the destination's state as `status` and `destinations list` show it."""
    with snapshot(database.engine) as connection:
        (row,) = list_destinations(connection)
        return status(connection).destinations["api"].health, row.health
