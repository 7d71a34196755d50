"""``outbox relay --processes N``: several relays under one that delivers nothing itself.

Each is a process of its own, in a session of its own: a Ctrl-C in the terminal reaches the supervisor alone, which
passes it on, so that no relay counts it twice. One that ends without being told to is started again, later each time.
One that says it cannot work here (exit code 3) ends them all: the others have the same settings.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process

import structlog

from outbox_cli.terminal import exits

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 30.0
SETTLED_AFTER_S = 60.0  # who has run for so long starts again at once

log = structlog.get_logger("relay")


async def supervise(count: int, *, drain: bool, apply: bool, health: tuple[str, int]) -> int:
    """Run relays until they are told to stop or, with ``drain``, are done.

    Args:
        count: How many.
        drain: Each delivers what can be delivered now, and exits.
        apply: They register the configured destinations, when they start for the first time.
        health: The address of their health pages, and the first one's port; the others have those after it. 0: none.

    Returns:
        The exit code: the worst of theirs.
    """
    supervisor = Supervisor(count, drain=drain, apply=apply, health=health)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.forward, number)
    return await supervisor.run()


class Supervisor:
    def __init__(self, count: int, *, drain: bool, apply: bool, health: tuple[str, int]) -> None:
        self._count = count
        self._drain = drain
        self._apply = apply
        self._health_host, self._health_port = health
        self._children: dict[int, Process] = {}
        self._stopping = asyncio.Event()
        self._signal = signal.SIGTERM
        self._read_end, self._write_end = os.pipe()

    async def run(self) -> int:
        codes = await asyncio.gather(*(self._keep(index) for index in range(self._count)))
        return exits.UNUSABLE if exits.UNUSABLE in codes else max(codes)

    def forward(self, number: signal.Signals) -> None:
        """Pass a signal on; from now on nobody is started again."""
        self._signal = number
        self._stopping.set()
        for child in self._children.values():
            child.send_signal(number)

    async def _keep(self, index: int) -> int:
        """Run one relay, again and again, until it is told to stop; its last exit code."""
        backoff_s, apply = FIRST_BACKOFF_S, self._apply
        while True:
            started_at = time.monotonic()
            code = await self._run_once(index, apply=apply)
            apply = False  # by now somebody else may have applied others, which are not for a restart to undo
            if self._stopping.is_set():
                # The signal itself ends a child that has not come to handling it yet.
                return exits.OK if code == -self._signal else _shell_code(code)
            if self._drain and code == exits.OK:
                return code
            if code == exits.UNUSABLE:
                self.forward(signal.SIGTERM)
                return code
            if time.monotonic() - started_at > SETTLED_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            log.warning("relay_process_ended", index=index, exit_code=code, restarting_after_s=backoff_s)
            if await self._told_to_stop_within(backoff_s):
                return exits.OK
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    async def _run_once(self, index: int, *, apply: bool) -> int:
        child = await asyncio.create_subprocess_exec(
            *self._command(index, apply=apply), pass_fds=[self._read_end], start_new_session=True
        )
        self._children[index] = child
        if self._stopping.is_set():  # told to while it was being started
            child.send_signal(self._signal)
        try:
            return await child.wait()
        finally:
            del self._children[index]

    async def _told_to_stop_within(self, delay_s: float) -> bool:
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def _command(self, index: int, *, apply: bool) -> list[str]:
        port = self._health_port + index if self._health_port else 0
        command = [
            sys.executable,
            "-P",
            "-m",
            "outbox_cli",
            "relay",
            "--health-host",
            self._health_host,
            "--health-port",
            str(port),
        ]
        command += ["--parent-fd", str(self._read_end)]
        command += ["--drain"] * self._drain + ["--apply"] * apply
        return command


def _shell_code(code: int) -> int:
    return 128 - code if code < 0 else code
