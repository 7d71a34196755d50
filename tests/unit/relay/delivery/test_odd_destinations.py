"""A destination of another package may return or raise anything: its message has failed, and the worker goes on."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.lanes import Message, run

from relay.decide.backoff import Policy
from relay.decide.outcome import TAKEN, Outcome


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no message")


def raising(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


ODD = {
    "None": lambda: None,
    "text": lambda: "taken",
    "unknown": lambda: Outcome("mislaid"),  # type: ignore[arg-type]
    "bytes": lambda: Outcome("failed", b"no", b"no", b"no"),  # type: ignore[arg-type]
    "cancelled": raising(asyncio.CancelledError()),
    "exit": raising(SystemExit(3)),
    "interrupt": raising(KeyboardInterrupt()),
    "base": raising(BaseException("no exception")),
    "mute": raising(Mute()),
}


class OddDestination:
    name, concurrency, batch_size = "odd", 1, 1

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, message: Message) -> Any:
        return self._answer() if message.id == "bad" else TAKEN


class OddBatchDestination(OddDestination):
    batch_size = 10

    def may_share(self, message: Message) -> bool:
        return True

    async def send(self, message: Message) -> Any:
        return TAKEN

    async def send_many(self, messages: Sequence[Message]) -> Any:
        return self._answer()


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD.keys())
async def test_an_attempt_without_an_outcome_has_failed(answer: Callable[[], Any]) -> None:
    entries = [("bad", None, "{}"), ("good", None, "{}"), ("last", None, "{}")]
    states = await run(OddDestination(answer), entries, policy=Policy(max_attempts=1, backoff_s=0.01))
    assert states == {"bad": "dead", "good": "delivered", "last": "delivered"}


@pytest.mark.parametrize(("waits", "fate"), [(True, "dead"), (False, "delivered")], ids=["at once", "later"])
async def test_an_attempt_that_cancels_its_own_task_costs_no_worker_and_no_other_message(
    waits: bool, fate: str
) -> None:
    """The only worker used to end, and its message stayed under way for ever."""

    class Cancelling(OddDestination):
        async def send(self, message: Message) -> Any:
            if message.id == "bad" and (task := asyncio.current_task()):
                task.cancel()
                if waits:
                    await asyncio.sleep(0)
            return TAKEN

    entries = [("bad", None, "{}"), ("good", None, "{}"), ("last", None, "{}")]
    states = await run(Cancelling(lambda: None), entries, policy=Policy(max_attempts=1, backoff_s=0.01))
    assert states == {"bad": fate, "good": "delivered", "last": "delivered"}


@pytest.mark.parametrize(
    "answer",
    [*ODD.values(), lambda: [TAKEN], lambda: [None] * 3, lambda: [TAKEN] * 4],
    ids=[*ODD.keys(), "few", "Nones", "many"],
)
async def test_a_batch_without_outcomes_is_sent_one_by_one(answer: Callable[[], Any]) -> None:
    entries = [(id_, None, "{}") for id_ in "abc"]
    assert await run(OddBatchDestination(answer), entries) == dict.fromkeys("abc", "delivered")


@pytest.mark.parametrize("bad", ["a", "b"])
@pytest.mark.parametrize(
    "error", [ValueError("odd"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr
)
async def test_a_message_that_the_destination_fails_to_place_goes_alone(error: BaseException, bad: str) -> None:
    class Undecided(OddBatchDestination):
        def may_share(self, message: Message) -> bool:
            if message.id == bad:
                raise error
            return True

    entries = [(id_, None, "{}") for id_ in "abc"]
    assert await run(Undecided(lambda: TAKEN), entries) == dict.fromkeys("abc", "delivered")
