"""How a lane sends batches: as many as are waiting, never two of one key, alone after trouble."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from support.lanes import Harness, make_entry, run
from support.waiting import eventually_async

from outbox import Message
from relay.decide.outcome import TAKEN, Outcome, failed, refused, throttled, unanswered, unreachable
from relay.destinations.contract import BATCH_BYTES

Answer = Callable[[list[str]], Outcome | list[Outcome]]


class Destination:
    """Answers as it is told, and remembers what it was sent."""

    name = "api"

    def __init__(self, answer: Answer, *, batch_size: int = 10, concurrency: int = 1) -> None:
        self.batch_size = batch_size
        self.concurrency = concurrency
        self.sent: list[list[str]] = []
        self._answer = answer
        self.under_way: set[str | None] = set()
        self.keys_twice: list[str] = []

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def may_share(self, message: Message) -> bool:
        return "loner" not in message.id

    async def send(self, message: Message) -> Outcome:
        outcome = await self.send_many([message])
        return outcome if isinstance(outcome, Outcome) else outcome[0]

    async def send_many(self, messages: Sequence[Message]) -> Outcome | list[Outcome]:
        sent = [message.id for message in messages]
        self.sent.append(sent)
        keys = {message.ordering_key for message in messages} - {None}
        self.keys_twice += sorted(str(key) for key in keys & self.under_way)
        self.under_way |= keys
        await asyncio.sleep(0.001)
        self.under_way -= keys
        return self._answer(sent)


@pytest.fixture
def plain() -> list[tuple[str, str | None, str]]:
    return [(f"m{i}", None, "{}") for i in range(4)]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A destination that asks for a pause gets a short one."""
    monkeypatch.setattr("relay.decide.backoff.LEAST_S", 0.05)


async def test_what_is_waiting_goes_in_one_batch(plain: list[tuple[str, str | None, str]]) -> None:
    destination = Destination(lambda _ids: TAKEN)
    assert set((await run(destination, plain)).values()) == {"delivered"}
    assert destination.sent == [["m0", "m1", "m2", "m3"]]


async def test_a_batch_has_a_limit_of_messages(plain: list[tuple[str, str | None, str]]) -> None:
    destination = Destination(lambda _ids: TAKEN, batch_size=3)
    await run(destination, plain)
    assert destination.sent == [["m0", "m1", "m2"], ["m3"]]


async def test_a_batch_has_a_limit_of_bytes() -> None:
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


async def test_one_bad_message_in_a_batch_condemns_no_other(plain: list[tuple[str, str | None, str]]) -> None:
    destination = Destination(lambda ids: refused("no") if "m1" in ids else TAKEN)
    states = await run(destination, plain)
    assert states == {"m0": "delivered", "m1": "dead", "m2": "delivered", "m3": "delivered"}
    assert destination.sent[0] == ["m0", "m1", "m2", "m3"]
    assert all(len(sent) == 1 for sent in destination.sent[1:])


async def test_a_failed_batch_is_sent_one_by_one_in_its_order(plain: list[tuple[str, str | None, str]]) -> None:
    destination = Destination(lambda ids: failed("500") if len(ids) > 1 else TAKEN)
    assert set((await run(destination, plain)).values()) == {"delivered"}
    assert destination.sent == [["m0", "m1", "m2", "m3"], ["m0"], ["m1"], ["m2"], ["m3"]]


async def test_each_message_of_a_batch_may_have_an_outcome_of_its_own(
    plain: list[tuple[str, str | None, str]],
) -> None:
    destination = Destination(lambda ids: [refused("too large") if id_ == "m1" else TAKEN for id_ in ids])
    states = await run(destination, plain)
    assert states == {"m0": "delivered", "m1": "dead", "m2": "delivered", "m3": "delivered"}
    assert len(destination.sent) == 1


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("trouble", [unreachable("no connection"), throttled("503", 0.0), unanswered("timeout")])
@pytest.mark.parametrize("has_siblings", [False, True], ids=["alone", "beside another"])
async def test_a_batch_that_is_not_taken_keeps_every_key_in_order(trouble: Outcome, has_siblings: bool) -> None:
    """The rest of the batch once lost its chains; newcomers overtook their predecessors, and workers failed."""
    is_down = True
    destination = Destination(lambda _ids: trouble if is_down else TAKEN, concurrency=3)
    harness = Harness(destination, has_siblings=has_siblings)
    harness.offer(*[(f"m{n}", f"k{n}", "{}") for n in range(60)])
    await harness.pool.start()
    await eventually_async(lambda: destination.sent and not destination.under_way)
    for n in range(60):
        harness.lane.accept(make_entry(harness.lane, f"later{n}", 1000 + n, f"k{n}"), None)
    is_down = False
    harness.lane.announce()
    await harness.until_finished(120)
    await harness.pool.finish(1)
    assert (destination.keys_twice, harness.failures) == ([], [])
    assert harness.lane.queue.size == 0
    for n in range(60):
        assert (harness.states[f"m{n}"] == "delivered") >= (harness.states[f"later{n}"] == "delivered")


async def test_a_worker_that_dies_is_noticed() -> None:
    harness = Harness(Destination(lambda _ids: TAKEN))

    def broken(*_: object) -> None:
        raise KeyError("k")

    harness.lane.finish = broken  # type: ignore[method-assign]
    harness.offer(("m0", None, "{}"))
    await harness.pool.start()
    await eventually_async(lambda: harness.failures)
    await harness.pool.finish(1)
    assert [type(error) for error in harness.failures] == [KeyError]


@pytest.mark.usefixtures("soon")
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
