"""Leaving on Ctrl-C at any moment."""

import logging
import signal
import sys
import threading
import time

import pytest
import sqlalchemy as sa

from outbox_cli import main
from outbox_cli.terminal.shutdown import keep_interrupts_out_of_the_log, repeating_lost_interrupts


def interrupted(_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("pool", [sa.NullPool, sa.QueuePool])
def test_an_interrupt_while_a_connection_is_closed_is_passed_on_and_leaves_no_traceback(
    pool: type[sa.Pool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep_interrupts_out_of_the_log()
    engine = sa.create_engine("sqlite://", poolclass=pool)
    connection = engine.connect()
    driver = connection.connection.dbapi_connection
    assert driver is not None
    monkeypatch.setattr(engine.dialect, "do_close" if pool is sa.NullPool else "do_rollback", interrupted)
    with caplog.at_level(logging.ERROR), pytest.raises(KeyboardInterrupt):
        connection.close()
    driver.close()
    assert caplog.records == []


class Interrupted:
    """A module during whose import Ctrl-C comes."""

    def __getattr__(self, name: str) -> object:
        raise KeyboardInterrupt


def test_an_interrupt_while_the_program_is_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "outbox_cli.app", Interrupted())  # type: ignore[arg-type]
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 130


class InterruptedAtItsEnd:
    """An object during whose destructor Ctrl-C comes."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("lingers_s", [0.0, 0.1])
def test_an_interrupt_in_a_destructor_is_not_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lingers_s: float
) -> None:
    """Python printed it as "Exception ignored", and the command went on, also if it came again while that was noted."""
    start = threading.Thread.start

    def start_slowly(thread: threading.Thread) -> None:
        start(thread)
        time.sleep(lingers_s)

    def work() -> None:
        with repeating_lost_interrupts():
            assert InterruptedAtItsEnd()
            time.sleep(10)

    monkeypatch.setattr(threading.Thread, "start", start_slowly)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert "ignored" not in capsys.readouterr().err


def test_another_error_in_a_destructor_is_reported_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(type(unraisable.exc_value)))

    class Broken:
        def __del__(self) -> None:
            raise LookupError

    with repeating_lost_interrupts():
        assert Broken()
    assert seen == [LookupError]
