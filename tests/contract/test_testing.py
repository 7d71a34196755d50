"""`outbox.testing`: what an adopter's tests see of the messages that their code emits."""

import subprocess
import sys
from contextlib import suppress
from datetime import timedelta

import pytest
import structlog
from sqlalchemy.orm import Session
from support.writers import WAYS, Writer

from outbox import Event, OutboxError, emit, emit_many
from outbox.testing import capture, drain, drain_async


class ChapterRead(Event, type="chapter.read"):
    chapter_number: int


class Stop(Exception):
    pass


@pytest.fixture(params=WAYS, ids=str)
def writer(request):
    return Writer(request.getfixturevalue(f"{request.param.kind}_database"), request.param)


def types(captured):
    return [each.type for each in captured]


async def test_what_is_emitted_is_seen_as_it_was_meant(writer):
    with capture() as emitted:
        id = await writer.emit(
            ChapterRead(chapter_number=7), ordering_key="k", subject="s", headers={"x-a": "b"}, delay=5
        )
    (it,) = emitted
    assert (it.id, it.type, it.source, it.data) == (id, "chapter.read", "outbox", {"chapterNumber": 7})
    assert (it.ordering_key, it.subject, it.headers) == ("k", "s", {"x-a": "b"})
    assert (it.delay, it.due_at, it.state) == (timedelta(seconds=5), None, "committed")
    assert it.message.event(ChapterRead) == ChapterRead(chapter_number=7)
    assert emitted.of(ChapterRead) == emitted.of("chapter.read") == [it]
    assert emitted.of("chapter.other") == []


async def test_what_is_rolled_back_is_seen_apart(writer):
    with capture() as emitted, suppress(Stop):
        async with writer.transaction() as transaction:
            await transaction.emit("page.lost", {})
            async with transaction.savepoint():
                await transaction.emit("page.lost", {})
            raise Stop
    assert types(emitted) == []
    assert types(emitted.rolled_back) == ["page.lost", "page.lost"]


async def test_a_rolled_back_savepoint_takes_its_own_messages_only(writer):
    with capture() as emitted:
        async with writer.transaction() as transaction:
            with suppress(Stop):
                async with transaction.savepoint():
                    await transaction.emit("page.lost", {})
                    async with transaction.savepoint():
                        await transaction.emit("page.lost", {})
                    raise Stop
            await transaction.emit("page.before", {})
            async with transaction.savepoint():
                await transaction.emit("page.kept", {})
            with suppress(Stop):
                async with transaction.savepoint():
                    await transaction.emit("page.lost", {})
                    raise Stop
            await transaction.emit_many([("page.after", {})] * 2)
            assert types(emitted) == ["page.before", "page.kept", "page.after", "page.after"]
            assert types(emitted.committed) == []
    assert types(emitted.committed) == ["page.before", "page.kept", "page.after", "page.after"]
    assert types(emitted.rolled_back) == ["page.lost"] * 3
    assert types(emitted) == [row.type for row in writer.rows("type")]


async def test_what_is_seen_is_what_is_stored_over_several_transactions(writer):
    with capture() as emitted:
        for number in range(6):
            with suppress(Stop):
                async with writer.transaction() as transaction:
                    await transaction.emit("page.n", {"n": number})
                    if number % 2:
                        raise Stop
    assert [it.data["n"] for it in emitted.committed] == [0, 2, 4]


def test_a_session_that_is_never_flushed_has_emitted_only_while_it_lives(database):
    with capture() as emitted:
        with Session(database.engine) as session:
            emit(session, "page.read", {})
            assert emitted[0].state == "pending"
            session.flush()
            assert emitted[0].state == "written"
            emit(session, "page.read", {})
        assert types(emitted) == []


def test_a_session_that_was_looked_at_can_go_on_after_a_rollback(database):
    with capture() as emitted, Session(database.engine) as session:
        emit(session, "page.lost", {})
        session.rollback()
        emit(session, "page.kept", {})
        session.commit()
    assert types(emitted) == ["page.kept"]
    assert types(database.rows("SELECT type FROM outbox_message")) == ["page.kept"]


def test_a_session_without_a_database_is_enough():
    with capture() as emitted, Session() as session:
        emit(session, "page.read", {"n": 1})
        assert [it.data for it in emitted] == [{"n": 1}]


def test_a_test_that_rolls_everything_back_at_its_end_sees_what_its_code_committed(database):
    with capture() as emitted, database.engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            emit(session, "page.read", {})
            session.commit()
        assert types(emitted) == ["page.read"]
        outer.rollback()
    assert types(emitted) == []


def test_what_failed_to_be_written_was_not_emitted(database):
    id = "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"
    with database.engine.begin() as connection:
        emit(connection, "page.read", {}, id=id)
    with capture() as emitted, suppress(Exception), database.engine.begin() as connection:
        emit(connection, "page.read", {}, id=id)
    assert types(emitted) == []


def test_captures_may_be_nested_and_end_with_their_blocks(database):
    with capture() as outer, database.engine.begin() as connection:
        emit(connection, "page.first", {})
        with capture() as inner:
            emit(connection, "page.second", {})
        emit(connection, "page.third", {})
    assert types(inner.committed) == ["page.second"]
    assert types(outer.committed) == ["page.first", "page.second", "page.third"]
    emit(Session(), "page.unseen", {})
    assert len(outer) == 3


ADOPTERS_TEST = """
from sqlalchemy.orm import Session
from outbox import emit

def test_it(outbox_emitted):
    with Session() as session:
        emit(session, "page.read", {"n": 1})
        session.rollback()
        emit(session, "page.read", {"n": 2})
        assert [it.data["n"] for it in outbox_emitted.of("page.read")] == [2]

def test_the_next_starts_afresh(outbox_emitted):
    assert len(outbox_emitted) == 0
"""


def test_pytest_has_a_fixture_for_it(tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["outbox.testing"]\n')
    (tmp_path / "test_adopter.py").write_text(ADOPTERS_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_capturing_needs_no_pytest():
    code = "import sys; sys.modules['pytest'] = None; from outbox.testing import capture; capture().__enter__()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_drain_delivers_what_was_committed_to_a_listener(database):
    with Session(database.engine) as session:
        emit(session, ChapterRead(chapter_number=1))
        emit(session, ChapterRead(chapter_number=2))
        session.commit()
        emit(session, ChapterRead(chapter_number=3))
        session.rollback()
    seen = []
    drained = drain(database.engine, lambda message: seen.append(message.data["chapterNumber"]))
    assert sorted(seen) == [1, 2]
    assert (drained.delivered, drained.reason) == (2, None)
    assert drain(database.url, seen.append).delivered == 0


async def test_drain_async_delivers_to_several_by_name(database):
    with database.engine.begin() as connection:
        emit(connection, "page.read", {})
        emit(connection, "book.bought", {})
    seen = []

    async def listener(message):
        seen.append(message.type)

    await drain_async(database.async_engine(), {"first": listener, "second": listener}, events=["page.*", "book.*"])
    assert sorted(seen) == ["book.bought"] * 2 + ["page.read"] * 2


def test_a_listener_that_raises_in_a_test_is_shown_in_a_few_lines_without_its_variables(database, capsys):
    with database.engine.begin() as connection:
        emit(connection, "page.read", {})

    def listener(message):
        password = "correct-horse"
        raise ValueError(len(password))

    structlog.reset_defaults()  # as in a process where nothing has configured it
    drain(database.engine, listener)
    said = capsys.readouterr().out
    assert "ValueError: 13" in said
    assert "test_testing.py" in said
    assert "correct-horse" not in said
    assert len(said.splitlines()) < 20


def test_what_was_drained_says_why_something_was_not_taken(database):
    with database.engine.begin() as connection:
        first, *_ = emit_many(connection, [("page.read", {"n": n}) for n in range(3)])
    tries = []

    def listener(message):
        tries.append(message.id)
        if message.id == first:
            raise ValueError("no shelf for it")

    drained = drain(database.engine, listener)
    assert drained.delivered == 2
    assert f"page.read {first}: " in drained.reason
    assert drained.reason.endswith("raised ValueError: no shelf for it")
    assert drained.reason.startswith("1 not taken: ")


def test_an_async_listener_that_raises_in_a_test_is_shown_without_errors_of_ours(database, capsys):
    async def listener(message):
        raise ValueError("unreadable")

    with database.engine.begin() as connection:
        emit(connection, "page.read", {"n": 1})
    drain(database.engine, listener)
    shown = capsys.readouterr()
    assert "unreadable" in shown.out + shown.err
    assert "During handling of the above exception" not in shown.out + shown.err


@pytest.mark.parametrize("given", ["my_app:listener", None, {"reports": "my_app:listener"}], ids=str)
def test_what_cannot_be_a_destination_in_a_test_is_refused_with_a_sentence(database, given):
    with pytest.raises(OutboxError, match="is no destination: pass a listener, as a callable, or settings"):
        drain(database.engine, given)


async def test_drain_in_an_event_loop_says_what_to_write(database):
    with pytest.raises(OutboxError, match=r"write await drain_async\(…\)"):
        drain(database.engine, print)
