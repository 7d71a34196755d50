"""What a destination keeps of answers, and for how long."""

import asyncio
from unittest.mock import patch

from support.waiting import eventually_async

from relay.destinations.sending import due as module
from relay.destinations.sending.due import Due


async def test_an_answer_is_forgotten_when_its_attempt_has_ended() -> None:
    due, answer = Due[str](), asyncio.Future[str]()
    due.add(["a", "b"], answer)
    answer.set_result("taken")
    due.let_go(["a"])
    assert (due.get("a"), due.get("b")) == (None, answer)
    due.let_go(["b"])
    assert list(due) == []


async def test_an_answer_that_no_one_waited_for_is_there_for_the_next_attempt_and_no_longer_than_a_while() -> None:
    due, answer = Due[str](), asyncio.Future[str]()
    due.add(["a", "b"], answer)
    due.let_go(["a", "b"])
    with patch.object(module, "LATE_S", 0.0):
        answer.set_result("taken")
        assert (due.get("a"), due.get("b")) == (answer, answer)
        await eventually_async(lambda: not list(due))


async def test_a_failure_that_no_one_waited_for_is_forgotten_and_retrieved() -> None:
    due, answer = Due[str](), asyncio.Future[str]()
    due.add(["a"], answer)
    due.let_go(["a"])
    answer.set_exception(ConnectionError())
    await eventually_async(lambda: due.get("a") is None)


async def test_a_message_that_is_published_again_keeps_its_new_answer() -> None:
    due, first, second = Due[str](), asyncio.Future[str](), asyncio.Future[str]()
    due.add(["a"], first)
    due.let_go(["a"])
    with patch.object(module, "LATE_S", 0.0):
        first.set_result("late")
        due.add(["a"], second)
        for _ in range(5):
            await asyncio.sleep(0)
    assert due.get("a") is second
    second.cancel()
