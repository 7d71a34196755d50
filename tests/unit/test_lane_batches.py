"""How a lane sends batches: as many as are waiting, never two of one key, alone after trouble."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from support.waiting import eventually_async

from outbox import Message
from relay.decide.backoff import Policy
from relay.decide.outcome import TAKEN, Outcome, failed, refused, throttled, unreachable
from relay.destinations.contract import BATCH_BYTES
from relay.entry import Entry
from relay.lane import Lane

Answer = Callable[[list[str]], Outcome]


class Destination:
    """Answers as it is told, and remembers what it was sent."""

    name = "api"

    def __init__(self, answer: Answer, *, batch_size: int = 10, concurrency: int = 1) -> None:
        self.batch_size = batch_size
        self.concurrency = concurrency
        self.sent: list[list[str]] = []
        self._answer = answer

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def may_share(self, message: Message) -> bool:
        return "loner" not in message.id

    async def send(self, message: Message) -> Outcome:
        return await self.send_many([message])

    async def send_many(self, messages: Sequence[Message]) -> Outcome:
        self.sent.append([message.id for message in messages])
        await asyncio.sleep(0)
        return self._answer(self.sent[-1])


class Harness:
    """A lane, what it has finished, and what it says of its destination."""

    def __init__(self, destination: Destination) -> None:
        self.finished: list[Entry] = []
        self.lane = Lane(
            destination,
            policy=Policy(backoff_s=0.01),
            limit=1000,
            on_dead="block",
            on_complete=self.finished.append,
            on_finding=lambda _: None,
            on_probe=lambda _: None,
            may_send=lambda _now: True,
        )

    def offer(self, *entries: tuple[str, str | None, str]) -> None:
        for position, (id_, key, data) in enumerate(entries):
            row = (id_, position, 0, 0, "t", "outbox", None, key, data, "{}", "2026-01-01", None)
            self.lane.offer(Entry(row, (self.lane,), 1))
        self.lane.wake()

    async def until_finished(self, count: int) -> dict[str, str]:
        """What became of each entry, when so many have been decided."""
        await eventually_async(lambda: len(self.finished) >= count)
        return {e.id: e.verdict_of(self.lane).state for e in self.finished}


@pytest.fixture
def plain() -> list[tuple[str, str | None, str]]:
    return [(f"m{i}", None, "{}") for i in range(4)]


async def run(
    destination: Destination, entries: list[tuple[str, str | None, str]], count: int | None = None
) -> dict[str, str]:
    harness = Harness(destination)
    harness.offer(*entries)
    await harness.lane.start()
    try:
        return await harness.until_finished(len(entries) if count is None else count)
    finally:
        await harness.lane.finish(1)


async def test_what_is_waiting_goes_in_one_batch(plain: list[tuple[str, str | None, str]]) -> None:
    destination = Destination(lambda _ids: TAKEN)
    assert set((await run(destination, plain)).values()) == {"delivered"}
    assert destination.sent == [["m0", "m1", "m2", "m3"]]


async def test_a_batch_has_at_most_so_many_messages(plain: list[tuple[str, str | None, str]]) -> None:
    destination = Destination(lambda _ids: TAKEN, batch_size=3)
    await run(destination, plain)
    assert destination.sent == [["m0", "m1", "m2"], ["m3"]]


async def test_a_batch_has_at_most_so_many_bytes() -> None:
    destination = Destination(lambda _ids: TAKEN)
    half = f'"{"x" * (BATCH_BYTES // 2 - 10)}"'
    await run(destination, [("m0", None, half), ("m1", None, half), ("m2", None, half)])
    assert destination.sent == [["m0", "m1"], ["m2"]]


async def test_two_of_one_ordering_key_are_never_in_one_batch() -> None:
    destination = Destination(lambda _ids: TAKEN)
    await run(destination, [("a1", "a", "{}"), ("a2", "a", "{}"), ("b1", "b", "{}"), ("b2", "b", "{}")])
    assert destination.sent == [["a1", "b1"], ["a2", "b2"]]


async def test_what_no_batch_can_carry_goes_alone_between_batches() -> None:
    destination = Destination(lambda _ids: TAKEN)
    await run(destination, [(id_, None, "{}") for id_ in ("m0", "m1", "loner", "m2", "m3")])
    assert destination.sent == [["m0", "m1"], ["loner"], ["m2", "m3"]]


async def test_one_bad_message_in_a_batch_condemns_nobody_else(plain: list[tuple[str, str | None, str]]) -> None:
    destination = Destination(lambda ids: refused("no") if "m1" in ids else TAKEN)
    states = await run(destination, plain)
    assert states == {"m0": "delivered", "m1": "dead", "m2": "delivered", "m3": "delivered"}
    assert destination.sent[0] == ["m0", "m1", "m2", "m3"]
    assert all(len(sent) == 1 for sent in destination.sent[1:])


async def test_a_failed_batch_is_sent_one_by_one_in_its_order(plain: list[tuple[str, str | None, str]]) -> None:
    destination = Destination(lambda ids: failed("500") if len(ids) > 1 else TAKEN)
    assert set((await run(destination, plain)).values()) == {"delivered"}
    assert destination.sent == [["m0", "m1", "m2", "m3"], ["m0"], ["m1"], ["m2"], ["m3"]]


@pytest.mark.parametrize("trouble", [unreachable("refused"), throttled("busy", 0.0)])
async def test_an_outage_is_no_reason_to_try_each_by_itself(
    plain: list[tuple[str, str | None, str]], trouble: Outcome
) -> None:
    answers = [trouble]
    destination = Destination(lambda _ids: answers.pop() if answers else TAKEN)
    assert set((await run(destination, plain)).values()) == {"delivered"}
    # The probe goes alone; what waits behind it goes together again.
    assert sorted(map(len, destination.sent)) in ([1, 3, 4], [4, 4])


async def test_a_destination_without_batches_gets_none(plain: list[tuple[str, str | None, str]]) -> None:
    destination = Destination(lambda _ids: TAKEN, batch_size=1)
    await run(destination, plain)
    assert destination.sent == [["m0"], ["m1"], ["m2"], ["m3"]]
