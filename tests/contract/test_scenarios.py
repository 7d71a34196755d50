"""What happens when a destination is down, one message is poison, or every message is refused: with 2,000 messages.

Each scenario runs against a listener and against a real HTTP server on the loopback address. docs/scenarios.md shows
the same to operators.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.receivers import Receiver, Request, answering
from support.scene import Scene, to
from support.waiting import eventually_async

from outbox import Message, Reject
from relay import Relay
from relay.admin.destinations.listing import resume
from relay.decide.breaker import PROBE_WITH
from relay.destinations.http.settings import HttpSettings

MESSAGES = 2_000
KEYS = 200
CONCURRENCY = 16
PROBE_S = 0.5  # the longest time between two probes here; 30 s by default
RAMP = 40  # messages taken after an outage until the relay uses the full concurrency, and more than it needs
POISON = 1_777


def key_of(n: int) -> str | None:
    """Return the key: every second message has one of many keys; the poison message has none."""
    return f"k{n % KEYS}" if n % 2 == 0 else None


class Receiving:
    """The receiving side of a destination: it notes what it is sent, and is down, or refuses, when it is told to.

    Attributes:
        tried: Number of a message → how often it came.
        taken: Ordering key → the numbers that were taken, in the order in which each was first taken.
        doomed: The numbers that fail each time.
        refusing: Whether every message is refused.
        gathers: Whether it keeps the messages after the first `RAMP` that it takes when it is back, until as many are
            under way as the destination's concurrency.
        full: Set when as many are under way.
    """

    probe_with = PROBE_WITH  # messages at most; one message shows that a destination cannot be reached

    def __init__(self) -> None:
        self.tried: Counter[int] = Counter()
        self.taken: defaultdict[str | None, list[int]] = defaultdict(list)
        self.taken_numbers: set[int] = set()
        self.doomed: set[int] = set()
        self.refusing = False
        self.taken_since = 0  # it came back
        self.under_way = 0
        self.gathers = False
        self.full = asyncio.Event()

    def settings(self, **options: Any) -> Any:
        raise NotImplementedError

    async def go_down(self) -> None:
        raise NotImplementedError

    async def come_back(self) -> None:
        self.taken_since = 0
        self.full.clear()

    async def close(self) -> None:
        """Release everything."""

    @property
    def taken_count(self) -> int:
        return len(self.taken_numbers)

    async def arrive(self, n: int) -> None:
        self.tried[n] += 1
        self.under_way += 1
        if self.under_way == CONCURRENCY:
            self.full.set()
        try:
            await (self.full.wait() if self.gathers and self.taken_since > RAMP else asyncio.sleep(0))
        finally:
            self.under_way -= 1

    def take(self, n: int) -> None:
        if n not in self.taken_numbers:
            self.taken[key_of(n)].append(n)
            self.taken_numbers.add(n)
        self.taken_since += 1


class Listening(Receiving):
    """A listener in the relay's own process."""

    def __init__(self) -> None:
        super().__init__()
        self.is_down = False

    def settings(self, **options: Any) -> Any:
        return to(self._listen, concurrency=CONCURRENCY, **options)

    async def _listen(self, message: Message) -> None:
        n = message.data["n"]
        await self.arrive(n)
        if self.is_down:
            raise ConnectionError("no answer")
        if self.refusing:
            raise Reject("it does not understand any more")
        if n in self.doomed:
            raise ValueError(f"cannot read {n}")
        self.take(n)

    async def go_down(self) -> None:
        self.is_down = True

    async def come_back(self) -> None:
        await super().come_back()
        self.is_down = False


class Serving(Receiving):
    """An HTTP server: down means that connections to its port are refused, and that open ones are cut off."""

    probe_with = 1

    def __init__(self) -> None:
        super().__init__()
        self.server = Receiver(self._behave)

    def settings(self, **options: Any) -> Any:
        return HttpSettings(url=self.server.url, concurrency=CONCURRENCY, secret="s" * 32, **options)

    async def _behave(self, request: Request, writer: asyncio.StreamWriter) -> None:
        n = json.loads(request.body)["n"]
        await self.arrive(n)
        if self.refusing:
            await answering(422, b'{"error":"unknown field"}')(request, writer)
        elif n in self.doomed:
            await answering(500, b'{"error":"cannot read it"}')(request, writer)
        else:
            self.take(n)
            await answering()(request, writer)

    async def go_down(self) -> None:
        await self.server.close()

    async def come_back(self) -> None:
        await super().come_back()
        await self.server.open()

    async def close(self) -> None:
        self.full.set()  # for the server waits for what it answers
        await self.server.close()


@pytest.fixture(params=[("sqlite", "http"), ("postgres", "listener")], ids="-".join)
def world(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A database and a destination: each of both, for the relay's part between them is the same in all pairs."""
    return request.param


@pytest.fixture
def scene(request: pytest.FixtureRequest, world: tuple[str, str]) -> Scene:
    return Scene(request.getfixturevalue(f"{world[0]}_database"))


@pytest.fixture
async def receiving(world: tuple[str, str]) -> AsyncIterator[Receiving]:
    if world[1] == "listener":
        yield Listening()
        return
    serving = Serving()
    await serving.server.open()
    yield serving
    await serving.close()


def relay_of(scene: Scene, receiving: Receiving, **options: Any) -> Relay:
    patience = {"backoff_s": 0.05, "backoff_max_s": PROBE_S, **options}
    return Relay(scene.settings({"a": receiving.settings(**patience)}))


def emit(scene: Scene) -> int:
    scene.emit_keys([key_of(n) for n in range(MESSAGES)])
    return MESSAGES


def assert_in_order(receiving: Receiving) -> None:
    for key, numbers in receiving.taken.items():
        assert key is None or numbers == sorted(numbers), key


def assert_no_message_was_charged(scene: Scene) -> None:
    assert scene.database.scalar("SELECT count(*) FROM outbox_history WHERE attempts > 1") == 0
    assert scene.database.scalar("SELECT count(*) FROM outbox_delivery WHERE state <> 'dead' AND attempts > 0") == 0


async def is_paused(scene: Scene) -> str:
    """Wait until the status shows that the destination is paused; return the reason."""
    await eventually_async(lambda: scene.status.destinations["a"].state == "paused")
    return scene.status.destinations["a"].reason or ""


async def all_taken(receiving: Receiving, count: int) -> None:
    await eventually_async(lambda: receiving.taken_count >= count, deadline_s=60, what=f"{count} are taken")


async def down_for_a_while(scene: Scene, receiving: Receiving, *, gathers: bool = False) -> None:
    """Take the destination down in the middle of the work, for several probes; no later probe fails."""
    await all_taken(receiving, 400)
    await receiving.go_down()
    reason = await is_paused(scene)
    assert "no answer" in reason or "connect" in reason.lower(), reason
    before = sum(receiving.tried.values())
    until = {scene.database.scalar("SELECT until FROM outbox_destination")}
    await eventually_async(
        lambda: len(until) > 3 or until.add(scene.database.scalar("SELECT until FROM outbox_destination")),
        what="three probes have failed",
    )
    assert sum(receiving.tried.values()) - before <= receiving.probe_with * len(until) + 4, "few messages"
    assert scene.status.dead <= len(receiving.doomed), "the poison may have died before"
    receiving.gathers = gathers
    await receiving.come_back()
    seen = [pauses(scene)]
    await eventually_async(lambda: receiving.taken_since or seen.append(pauses(scene)), deadline_s=60)
    assert max(seen) <= seen[0] + 1, "none fails but the probe that was under way"


def pauses(scene: Scene) -> int:
    """Return how often in a row the destination was found to be down."""
    return int(scene.database.scalar("SELECT pauses FROM outbox_destination"))


async def test_an_outage_costs_no_message_anything_and_ends_by_itself(scene: Scene, receiving: Receiving) -> None:
    count = emit(scene)
    async with relay_of(scene, receiving, max_attempts=1):
        await down_for_a_while(scene, receiving, gathers=True)
        await all_taken(receiving, count)
        await scene.becomes(count, 0, 0, 0)
    assert receiving.full.is_set(), "and then with its full concurrency"
    assert_no_message_was_charged(scene)
    assert_in_order(receiving)


async def test_one_poison_message_is_the_only_dead_letter_of_an_outage(scene: Scene, receiving: Receiving) -> None:
    receiving.doomed = {POISON}
    count = emit(scene)
    async with relay_of(scene, receiving, max_attempts=3):
        await down_for_a_while(scene, receiving)
        await all_taken(receiving, count - 1)
        while scene.status.dead < 1:  # it is blamed once another message is taken
            scene.emit(1)
            await all_taken(receiving, scene.count - 1)
        await scene.becomes(scene.count - 1, 0, 1, 0)
    (letter,) = scene.database.rows("SELECT attempts, reason FROM outbox_delivery")
    assert letter.attempts == 3
    assert "attempt 3 of 3" in letter.reason
    assert set(range(scene.count)) - receiving.taken_numbers == {POISON}
    assert_no_message_was_charged(scene)
    assert_in_order(receiving)


async def test_when_everything_is_refused_nothing_dies_and_a_resume_delivers_it_all(
    scene: Scene, receiving: Receiving
) -> None:
    receiving.refusing = True
    count = emit(scene)
    async with relay_of(scene, receiving, backoff_s=3600, backoff_max_s=3600) as relay:
        reason = await is_paused(scene)
        assert "422" in reason or "does not understand" in reason
        await relay.drain()
        assert scene.account == (0, count, 0, 0)
        receiving.refusing = False
        resume(scene.database.engine, "a", reason="the schema is deployed")
        await all_taken(receiving, count)
        await scene.becomes(count, 0, 0, 0)
    assert_no_message_was_charged(scene)
    assert_in_order(receiving)
