"""The threads of a plain listener: a call that overruns keeps its thread, and costs other calls only that."""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from support.waiting import eventually_async

from outbox import Message
from relay.databases.database import Database
from relay.destinations.listener.destination import ListenerDestination
from relay.destinations.listener.threads import NoThread

TIMEOUT_S = 0.2


def message(id_: str) -> Message:
    return Message(id_, "page.read", "s", None, None, "{}", {}, datetime.now(UTC))


class Hanging:
    """Hangs on some messages until the test releases it."""

    def __init__(self, *ids: str) -> None:
        self.ids = ids
        self.calls: list[str] = []
        self.go = threading.Event()

    def __call__(self, message: Message) -> None:
        self.calls.append(message.id)
        if message.id in self.ids:
            self.go.wait()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    listener = Hanging("h-1", "h-2")
    yield listener
    listener.go.set()


def destination(listener: Callable[[Message], None], timeout_s: float | None = TIMEOUT_S) -> ListenerDestination:
    database = Database.parse("sqlite:///never-opened.db")
    return ListenerDestination("pages", listener, database=database, concurrency=2, timeout_s=timeout_s)


async def hangs(pages: ListenerDestination, listener: Hanging, id_: str) -> str:
    """Send a message until its call has begun, which may take longer than its time on a busy machine."""
    while True:
        outcome = await pages.send(message(id_))
        if id_ in listener.calls:
            return outcome.kind


async def is_taken(pages: ListenerDestination, id_: str) -> bool:
    return (await pages.send(message(id_))).kind == "taken"


async def test_a_message_whose_call_overran_is_not_begun_again_before_that_has_ended(hanging: Hanging) -> None:
    pages = destination(hanging)
    assert await hangs(pages, hanging, "h-1") == "unanswered"
    again = await pages.send(message("h-1"))
    assert (again.kind, hanging.calls) == ("busy", ["h-1"])
    assert "still working on it" in again.reason
    hanging.go.set()
    await eventually_async(lambda: not pages.is_at_work_on(message("h-1")))
    await eventually_async(lambda: is_taken(pages, "h-1"))
    await pages.close()


async def test_others_go_on_beside_it_and_no_message_is_charged_for_having_no_thread(hanging: Hanging) -> None:
    pages = destination(hanging)
    await hangs(pages, hanging, "h-1")
    for n in range(5):
        await eventually_async(lambda n=n: is_taken(pages, f"m-{n}"))
    assert pages.held_s == 0
    await hangs(pages, hanging, "h-2")
    starved = await pages.send(message("m-9"))
    assert starved.kind == "unreachable"
    assert "hold all its threads" in starved.reason
    assert "m-9" not in hanging.calls
    assert pages.held_s > 0
    hanging.go.set()
    await eventually_async(lambda: pages.held_s == 0)
    await eventually_async(lambda: is_taken(pages, "m-9"))
    await pages.close()


async def test_what_had_no_thread_within_its_time_was_not_begun(hanging: Hanging) -> None:
    pages = destination(hanging)
    await asyncio.gather(*(hangs(pages, hanging, each) for each in ("h-1", "h-2")))
    with pytest.raises(NoThread):
        await pages.call(message("m-1"), TIMEOUT_S)
    assert "m-1" not in hanging.calls
    await pages.close()


async def test_a_call_that_stops_waiting_for_a_thread_is_cancelled(hanging: Hanging) -> None:
    pages = destination(hanging, timeout_s=None)
    tasks = [asyncio.create_task(pages.send(message(each))) for each in ("h-1", "h-2", "m-1")]
    await eventually_async(lambda: len(hanging.calls) == 2)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    await pages.close()


async def test_the_password_of_a_url_is_no_part_of_what_is_kept_of_a_failure() -> None:
    def fails(message: Message) -> None:
        raise LookupError("cannot reach redis://:hunter2@cache/0")

    outcome = await destination(fails).send(message("m-1"))
    assert outcome.reason.endswith("raised LookupError: cannot reach redis://:***@cache/0")


async def test_a_call_that_is_cancelled_before_there_was_a_thread_leaves_no_error_behind(hanging: Hanging) -> None:
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
    pages = destination(hanging, timeout_s=None)
    tasks = [asyncio.create_task(pages.call(message(each), 60)) for each in ("h-1", "h-2", "m-1")]
    await eventually_async(lambda: len(hanging.calls) == 2)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(0)  # lets the calls that they made end too
    del task, tasks
    gc.collect()
    assert said == []
    await pages.close()
