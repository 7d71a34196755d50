"""``outbox relay``: deliver messages until told to stop."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import RUN, app, examples
from outbox_cli.terminal.options import HealthHost, HealthPort
from outbox_cli.terminal.output import say
from outbox_cli.terminal.settings import put_current_directory_on_path, report_ignored, start_logging
from outbox_cli.terminal.shutdown import stop_on_signals
from relay.platform.wording import counted

if TYPE_CHECKING:
    from relay.admin.leftover import Leftover
    from relay.relay import Relay
    from relay.settings import Settings


@app.command(
    rich_help_panel=RUN,
    epilog=examples(
        "outbox relay",
        "outbox relay --drain  # deliver what is due, then exit",
        "outbox relay --processes 4",
        "outbox relay --apply  # after a change of destinations",
    )
    + "\n\nSIGTERM and Ctrl-C stop it in order: deliveries under way may finish within grace_s; it exits with 0. "
    "A second signal stops it at once, with 143 or 130: nothing is lost, but a message may be delivered twice. "
    "Without --drain it runs until it is stopped. With --drain it exits with 0 if everything due was "
    "delivered, and with 4 if not: it prints what is left, and why.\n\n" + exits.HELP,
)
def relay(
    drain: Annotated[bool, typer.Option("--drain", help="Deliver what can be delivered now, then exit.")] = False,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            help="The number of relays to run; their health pages are on --health-port and the ports after it.",
        ),
    ] = 1,
    apply: Annotated[
        bool,
        typer.Option(
            "--apply",
            help="Register this host's configured destinations for all relays, in place of the registered ones.",
        ),
    ] = False,
    health_host: HealthHost = None,
    health_port: HealthPort = None,
    parent_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Deliver messages to their destinations. Several relays may run, on one machine or on many."""
    from relay.settings import load

    settings = load({"health_host": health_host, "health_port": health_port})
    settings.require_database_file()
    start_logging(settings)
    report_ignored(settings)
    put_current_directory_on_path()
    if processes > 1:
        from outbox_cli.commands.run.supervisor import Supervisor

        health = settings.health_host, settings.health_port
        began_at = monotonic()
        code = asyncio.run(Supervisor(processes, drain=drain, apply=apply, health=health).run())
        if drain and code == exits.OK:
            from relay.admin.leftover import what_is_left

            code = _judged(what_is_left(settings, began_at))
    else:
        code = asyncio.run(_run(settings, drain=drain, apply=apply, parent_fd=parent_fd))
    raise typer.Exit(code)


def tune_interpreter() -> None:
    """Tune a process that has two busy threads and makes many short-lived objects without reference cycles.

    A thread that returns from the database waits for the interpreter for one switch interval at most. The default of 5
    ms would be longer than the database takes.
    """
    sys.setswitchinterval(0.0001)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _run(settings: Settings, *, drain: bool, apply: bool, parent_fd: int | None) -> int:
    from relay.observe.health import HealthServer
    from relay.relay import Relay

    tune_interpreter()
    relay = Relay(settings, apply=apply, wait_for_database=not drain)
    stopping = _Stopping(relay)
    stop_on_signals(stopping)
    if parent_fd is not None:
        _stop_when_orphaned(stopping, parent_fd)
    port = 0 if drain else settings.health_port
    host, stale_s = settings.health_host, settings.lease_s
    health = HealthServer(relay, port, host=host, stale_after_s=stale_s, metrics=relay.metrics.text)
    try:
        async with health, relay:  # in this order, because the process is alive while it waits for its database
            stopping.started = True
            watch = asyncio.create_task(_watch_for_stalls(settings.stall_timeout_s))
            try:
                if drain:
                    return await _drain(relay, look=parent_fd is None)
                await relay.wait()
                return exits.OK
            finally:
                watch.cancel()
    except asyncio.CancelledError:  # stopped before the start: there is nothing to clean up
        return exits.OK


async def _watch_for_stalls(stall_timeout_s: float) -> None:
    """Renew the timer that ends this process; a blocked event loop does not reach this code."""
    from relay.platform import watchdog as stall

    try:
        while True:
            stall.wind_up(stall_timeout_s)
            await asyncio.sleep(stall.LOOK_AGAIN_S)
    finally:
        stall.stop()


async def _drain(relay: Relay, *, look: bool) -> int:
    """Drain, and report what is left; if there are several relays, their supervisor reports it when all have ended.

    A relay of a supervisor does not end with `FAILED` if the drain ended early: after that code it is started again.
    """
    drained = await relay.drain(look=look)
    partly = f", and {drained.partly:,} to some of their destinations" if drained.partly else ""
    reason = f"; then: {drained.reason}" if drained.reason else ""
    say(f"delivered {counted(drained.delivered, 'message')}{partly}{reason}")
    if drained.reason and not drained.standing_by:
        return exits.FAILED if look else exits.UNHEALTHY
    return _judged(drained.left)


def _judged(left: Sequence[Leftover]) -> int:
    for each in left:
        say(f"left: {each}")
    return exits.UNHEALTHY if left else exits.OK


class _Stopping:
    """Stops a relay in order if it has started, else by cancelling the task that starts it."""

    def __init__(self, relay: Relay) -> None:
        self.started = False
        self._relay = relay
        self._task = asyncio.current_task()

    def __call__(self) -> None:
        if self.started:
            self._relay.stop()
        elif self._task is not None:
            self._task.cancel()


def _stop_when_orphaned(stopping: _Stopping, parent_fd: int) -> None:
    """Stop if the supervisor ends: it holds the other end of this pipe, which closes when it ends for any reason."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(parent_fd)
        stopping()

    loop.add_reader(parent_fd, stop)
