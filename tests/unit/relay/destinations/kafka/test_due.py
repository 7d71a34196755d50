"""What the Kafka destination keeps of answers, and for how long."""

import asyncio
import gc
import weakref

import pytest

pytest.importorskip("aiokafka")

from relay.decide.outcome import TAKEN, Outcome
from relay.destinations.kafka.due import Due, Publishing


async def confirmed(*ids: str) -> dict[str, Outcome]:
    return dict.fromkeys(ids, TAKEN)


async def test_answers_that_were_all_handed_out_are_not_kept_in_memory() -> None:
    due = Due()
    task: Publishing = asyncio.create_task(confirmed("a", "b"))
    due.add(["a", "b"], task)
    assert await due.outcomes(["a"]) == {"a": TAKEN}
    assert (due.has("a"), due.has("b")) == (False, True)
    assert due.known(["b"]) == {"b": TAKEN}
    kept = weakref.ref(task)
    del task
    await asyncio.sleep(0)
    gc.collect()
    assert kept() is None


async def test_an_answer_that_no_one_waited_for_is_there_for_the_next_attempt() -> None:
    due = Due()
    task: Publishing = asyncio.create_task(confirmed("a", "b"))
    due.add(["a", "b"], task)
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert due.known(["b"]) == {"b": TAKEN}
    assert due.known(["a", "b"]) == {"a": TAKEN}
