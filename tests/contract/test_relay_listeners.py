"""Listeners of every kind: threads and the event loop, sessions whose inbox mark commits with the effect, refusals."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from support.databases import Database
from support.scene import Scene, Taker, to
from support.waiting import eventually_async

from outbox import Event, Message, Reject
from outbox.errors import SettingsError

INSERT = text("INSERT INTO effect (n) VALUES (:n)")


@pytest.fixture
def scene(database: Database) -> Scene:
    database.execute("CREATE TABLE effect (n integer NOT NULL)")
    return Scene(database)


def effects(scene: Scene) -> list[int]:
    return [row.n for row in scene.database.rows("SELECT n FROM effect ORDER BY n")]


def forget_that_it_was_delivered(scene: Scene) -> None:
    """Make the same messages wait again, as after a crash between a listener's commit and the relay's."""
    columns = "id, type, source, subject, ordering_key, data, headers, created_at"
    scene.database.execute(f"INSERT INTO outbox_message ({columns}) SELECT {columns} FROM outbox_history")
    scene.database.execute("DELETE FROM outbox_history")


def sync_effect(message: Message, session: Session) -> None:
    session.execute(INSERT, {"n": message.data["n"]})


async def async_effect(message: Message, session: AsyncSession) -> None:
    await session.execute(INSERT, {"n": message.data["n"]})


EFFECTS = pytest.mark.parametrize("listener", [sync_effect, async_effect], ids=["Session", "AsyncSession"])


async def test_a_plain_listener_runs_in_threads_beside_the_event_loop(scene: Scene) -> None:
    both = threading.Barrier(2, timeout=30)
    names = set()

    def listener(message: Message) -> None:
        names.add(threading.current_thread().name)
        if message.data["n"] < 2:
            both.wait()

    scene.emit(20)
    assert await scene.drain({"a": to(listener, concurrency=2)}) == 20
    assert threading.main_thread().name not in names


async def test_an_async_listener_runs_on_the_event_loop(scene: Scene) -> None:
    loops = set()

    async def listener(message: Message) -> None:
        loops.add(asyncio.get_running_loop())

    scene.emit(3)
    await scene.drain({"a": listener})
    assert loops == {asyncio.get_running_loop()}


@EFFECTS
async def test_the_effect_and_the_inbox_mark_are_committed_together(scene: Scene, listener: Callable[..., Any]) -> None:
    scene.emit(30)
    await scene.drain({"a": listener})
    assert effects(scene) == list(range(30))
    assert scene.database.scalar("SELECT count(*) FROM inbox_message WHERE listener = 'a'") == 30


@EFFECTS
async def test_a_message_that_comes_again_has_no_second_effect(scene: Scene, listener: Callable[..., Any]) -> None:
    scene.emit(30)
    await scene.drain({"a": listener})
    forget_that_it_was_delivered(scene)
    assert await scene.drain({"a": listener}) == 30
    assert effects(scene) == list(range(30))
    assert scene.account == (30, 0, 0, 0)


async def test_two_listeners_of_one_message_have_an_effect_each(scene: Scene) -> None:
    scene.emit(10)
    await scene.drain({"a": sync_effect, "b": async_effect})
    assert effects(scene) == sorted([*range(10), *range(10)])


@pytest.mark.parametrize("kind", ["Session", "AsyncSession"])
@pytest.mark.parametrize("error", [ValueError, Reject, SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_a_listener_that_raises_leaves_neither_effect_nor_mark(
    scene: Scene, kind: str, error: type[BaseException]
) -> None:
    tries, rejecting = 0, error is Reject

    def misbehave(message: Message) -> None:
        nonlocal tries
        if message.data["n"] == 0:
            tries += 1
            if rejecting or tries < 3:
                raise error("not yet")

    def listener(message: Message, session: Session) -> None:
        sync_effect(message, session)
        misbehave(message)

    async def async_listener(message: Message, session: AsyncSession) -> None:
        await async_effect(message, session)
        misbehave(message)

    scene.emit(5)
    async with scene.relay({"a": listener if kind == "Session" else async_listener}):
        if rejecting:
            await scene.becomes(4, 0, 1, 0)
        else:
            await scene.becomes(5, 0, 0, 0)
    first = 1 if rejecting else 0
    assert effects(scene) == list(range(first, 5))
    assert scene.database.scalar("SELECT count(*) FROM inbox_message") == 5 - first


@pytest.mark.parametrize("kind", ["async", "plain", "Session", "AsyncSession"])
async def test_what_a_listener_changes_in_a_message_no_other_call_sees(scene: Scene, kind: str) -> None:
    seen: list[tuple[Any, Any]] = []

    def change(message: Message) -> None:
        seen.append((message.data.get("n"), message.headers.get("tenant")))
        message.data.clear()
        message.headers.clear()
        if len(seen) == 1:
            raise ValueError("once more")

    async def in_async(message: Message) -> None:
        change(message)

    def with_session(message: Message, session: Session) -> None:
        change(message)

    async def with_async_session(message: Message, session: AsyncSession) -> None:
        change(message)

    listener = {"async": in_async, "plain": change, "Session": with_session, "AsyncSession": with_async_session}[kind]
    scene.emit(1, headers={"tenant": "x"})
    async with scene.relay({"a": listener, "b": listener}):
        await scene.becomes(1, 0, 0, 0)
    assert seen == [(0, "x")] * 3


class PageRead(Event, type="page.read"):
    n: int


class StricterPageRead(Event):
    title: str


async def test_a_message_becomes_its_event_and_one_that_does_not_fit_is_dead(scene: Scene) -> None:
    got = []

    async def listener(message: Message) -> None:
        if message.data["n"] == 1:
            message.event(StricterPageRead)
        got.append(message.event(PageRead))

    scene.emit(3)
    async with scene.relay({"a": listener}):
        await scene.becomes(2, 0, 1, 0)
    assert sorted(event.n for event in got) == [0, 2]
    assert "title" in scene.database.scalar("SELECT reason FROM outbox_delivery")


def no_parameters() -> None: ...


def unknown_annotation(message: "NoSuchThing") -> None: ...  # noqa: F821


def unannotated_session(message: Message, session) -> None: ...  # type: ignore[no-untyped-def]


def async_session_for_a_plain_function(message: Message, session: AsyncSession) -> None: ...


async def plain_session_for_an_async_function(message: Message, session: Session) -> None: ...


def too_many(message: Message, session: Session, more: int) -> None: ...


@pytest.mark.parametrize(
    ("listener", "says"),
    [
        (no_parameters, "must take a message"),
        (unknown_annotation, "NoSuchThing"),
        (unannotated_session, "must be annotated"),
        (async_session_for_a_plain_function, "is not async"),
        (plain_session_for_an_async_function, "ask for AsyncSession"),
        (too_many, "also requires more"),
        ("no_such_module:listener", "cannot be loaded"),
        ("outbox:no_such_listener", "cannot be loaded"),
        ("outbox:__version__", "not callable"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)).replace(" ", "_"),
)
async def test_a_listener_that_cannot_be_called_is_found_at_the_start(scene: Scene, listener: Any, says: str) -> None:
    scene.emit(1)
    with pytest.raises(SettingsError, match=says):
        await scene.drain({"a": listener})
    assert scene.account == (0, 1, 0, 0)


async def test_a_listener_may_be_an_object_with_a_session(scene: Scene) -> None:
    class Listener:
        def __call__(self, message: Message, session: Session) -> None:
            sync_effect(message, session)

    scene.emit(3)
    await scene.drain({"a": Listener()})
    assert effects(scene) == [0, 1, 2]


async def test_a_listener_may_emit_and_what_it_emits_is_delivered_too(scene: Scene) -> None:
    from outbox import emit

    last = Taker()

    def listener(message: Message, session: Session) -> None:
        emit(session, "page.indexed", {"n": message.data["n"]})

    scene.emit(10)
    async with scene.relay({"first": to(listener, events=["page.read"]), "last": to(last, events=["page.indexed"])}):
        await eventually_async(lambda: len(last.taken) == 10)
        await scene.becomes(20, 0, 0, 0)
    assert sorted(last.taken) == list(range(10))
