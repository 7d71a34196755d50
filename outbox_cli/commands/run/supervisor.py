"""``outbox relay --processes N``: several relays under a supervisor that delivers nothing itself.

Each relay is a process in its own session. So a Ctrl-C in the terminal reaches only the supervisor, which passes it on,
and no relay counts it twice. A relay that ends without being told to is started again, after growing waits. If one
relay cannot work here (exit code 3), all relays end, because they have the same settings.
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
from relay.platform.waiting import is_set_within

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 30.0
SETTLED_AFTER_S = 60.0  # a relay that ran for this long is started again at once

log = structlog.get_logger("relay")


class Supervisor:
    """Runs relays until they are told to stop or, with ``drain``, are done.

    Args:
        count: The number of relays.
        drain: Whether each delivers what can be delivered now, and exits.
        apply: Whether they register the configured destinations at their first start.
        health: The address of their health pages, and the first relay's port; each further relay uses the next port. 0:
            no pages.
    """

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
        """Run the relays; return the exit code, which is the worst of theirs."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._forward, number)
        codes = await asyncio.gather(*(self._keep(index) for index in range(self._count)))
        return exits.UNUSABLE if exits.UNUSABLE in codes else max(codes)

    def _forward(self, number: signal.Signals) -> None:
        """Pass a signal on; from now on no relay is started again."""
        self._signal = number
        self._stopping.set()
        for child in self._children.values():
            child.send_signal(number)

    async def _keep(self, index: int) -> int:
        """Run one relay repeatedly until it is told to stop; return its last exit code."""
        backoff_s, apply = FIRST_BACKOFF_S, self._apply
        while True:
            started_at = time.monotonic()
            code = await self._run_once(index, apply=apply)
            apply = False  # other destinations may have been applied since then, and a restart must not undo that
            if self._stopping.is_set():
                # The default action of the signal ends a child that does not handle it yet.
                return exits.OK if code == -self._signal else _shell_code(code)
            if self._drain and code in (exits.OK, exits.UNHEALTHY):
                return code
            if code == exits.UNUSABLE:
                self._forward(signal.SIGTERM)
                return code
            if time.monotonic() - started_at > SETTLED_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            log.warning("relay_process_ended", index=index, exit_code=code, restarting_after_s=backoff_s)
            if await is_set_within(self._stopping, backoff_s):
                return exits.OK
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    async def _run_once(self, index: int, *, apply: bool) -> int:
        child = await asyncio.create_subprocess_exec(
            *self._command(index, apply=apply), pass_fds=[self._read_end], start_new_session=True
        )
        self._children[index] = child
        if self._stopping.is_set():  # the signal came during the start
            child.send_signal(self._signal)
        try:
            return await child.wait()
        finally:
            del self._children[index]

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
