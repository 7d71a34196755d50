"""A coroutine's first step, and the rest of it."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from outbox import Message
from relay.databases.database import Database
from relay.destinations.listener.destination import ListenerDestination
from relay.destinations.listener.started import start


async def run(coroutine: Coroutine[Any, Any, None]) -> None:
    if (rest := start(coroutine)) is not None:
        await rest


async def at_once(seen: list[Any]) -> None:
    seen.append("ran")


async def waits(seen: list[Any]) -> None:
    seen.append(asyncio.current_task())
    await asyncio.sleep(0)
    seen.append(await asyncio.to_thread(lambda: "from a thread"))
    seen.append(asyncio.current_task())


async def test_what_never_waits_has_run_when_it_is_started() -> None:
    seen: list[Any] = []
    assert start(at_once(seen)) is None
    assert seen == ["ran"]


async def test_what_waits_runs_on_when_it_is_awaited_in_the_same_task() -> None:
    seen: list[Any] = []
    rest, task = start(waits(seen)), asyncio.current_task()
    assert rest is not None
    assert seen == [task]
    await rest
    assert seen == [task, "from a thread", task]


async def test_what_is_no_coroutine_is_all_rest() -> None:
    task = asyncio.ensure_future(asyncio.sleep(0, "slept"))
    assert start(task) is task


async def fails_at_once() -> None:
    raise LookupError("nothing here")


async def fails_later() -> None:
    await asyncio.sleep(0)
    raise LookupError("nothing here")


@pytest.mark.parametrize("coroutine", [fails_at_once, fails_later])
async def test_what_it_raises_is_raised(coroutine: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with pytest.raises(LookupError, match="nothing here"):
        await run(coroutine())


async def test_a_cancellation_arrives_in_it_and_may_be_answered_with_a_few_last_words() -> None:
    seen: list[str] = []

    async def listener() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("rolled back")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await run(listener())
    assert seen == ["rolled back"]


async def test_the_first_step_counts_towards_a_listeners_deadline() -> None:
    async def listener(message: Message) -> None:
        time.sleep(0.3)  # noqa: ASYNC251
        await asyncio.sleep(0.05)

    destination = ListenerDestination("a", listener, database=Database.parse("sqlite:///none.db"), timeout_s=0.2)
    outcome = await destination.send(Message("e-1", "a.b", "/w", None, None, "{}", {}, "2026-01-01T00:00:00Z"))
    assert "took longer than 0.2 s" in str(outcome.reason)


async def ends_at_once(message: Message) -> None:
    raise GeneratorExit


async def ends_later(message: Message) -> None:
    await asyncio.sleep(0)
    raise GeneratorExit


def ends_in_a_thread(message: Message) -> None:
    raise GeneratorExit


@pytest.mark.parametrize("timeout_s", [None, 30.0])
@pytest.mark.parametrize("listener", [ends_at_once, ends_later, ends_in_a_thread])
async def test_a_generator_exit_of_its_own_code_is_a_failure(
    listener: Callable[[Message], Any], timeout_s: float | None
) -> None:
    destination = ListenerDestination("a", listener, database=Database.parse("sqlite:///none.db"), timeout_s=timeout_s)
    outcome = await destination.send(Message("e-1", "a.b", "/w", None, None, "{}", {}, "2026-01-01T00:00:00Z"))
    await destination.close()
    assert outcome.kind == "failed"
    assert "raised GeneratorExit" in str(outcome.reason)


def test_a_coroutine_that_is_closed_while_it_waits_is_closed_and_has_not_failed() -> None:
    seen: list[str] = []

    class Waits:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def listener() -> None:
        try:
            await Waits()
        except GeneratorExit:
            seen.append("closed")
            raise

    waiting = run(listener())
    waiting.send(None)
    waiting.close()
    assert seen == ["closed"]
    with pytest.raises(RuntimeError, match="cannot reuse"):
        waiting.send(None)
