"""One timer for all attempts ends what asyncio.timeout would end, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from relay.destinations.sending.deadline import Deadline

SOON_S = 0.02


async def hang(deadline: Deadline) -> None:
    """Make an attempt that does not end by itself."""
    with deadline.attempt():
        await asyncio.Event().wait()


async def test_each_attempt_that_is_late_ends_with_a_timeout() -> None:
    deadline = Deadline(SOON_S)
    for _ in range(3):
        found = await asyncio.gather(*(hang(deadline) for _ in range(5)), return_exceptions=True)
        assert [type(error) for error in found] == [TimeoutError] * 5


async def test_an_attempt_that_began_later_has_its_own_time() -> None:
    deadline, order = Deadline(SOON_S), list[str]()

    async def note(name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        with pytest.raises(TimeoutError):
            await hang(deadline)
        order.append(name)

    await asyncio.gather(note("second", SOON_S / 2), note("first", 0))
    assert order == ["first", "second"]


async def test_an_attempt_that_has_ended_leaves_its_task_alone() -> None:
    deadline = Deadline(SOON_S)

    async def work() -> str:
        with deadline.attempt():
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.gather(hang(deadline))  # a separate task, so the timer has rung for the first attempt
        return "done"

    assert await work() == "done"


async def test_an_error_of_the_attempt_comes_through() -> None:
    deadline = Deadline(SOON_S)
    with pytest.raises(ValueError, match="mine"), deadline.attempt():
        raise ValueError("mine")


async def test_a_cancellation_from_elsewhere_is_no_timeout() -> None:
    task = asyncio.create_task(hang(Deadline(60)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_elsewhere_at_the_deadline_stays_one() -> None:
    deadline = Deadline(60)
    task = asyncio.create_task(hang(deadline))
    await asyncio.sleep(0)
    deadline._attempts[0].expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_attempts_that_have_ended_take_no_memory() -> None:
    deadline = Deadline(60)
    for _ in range(1000):
        with deadline.attempt():
            await asyncio.sleep(0)
    assert len(deadline._attempts) == 1
    deadline.close()
