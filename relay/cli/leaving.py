"""Leaving, also when a listener's thread hangs: Python would wait for it for ever."""

from __future__ import annotations

import os
import sys
import threading
from time import monotonic

import typer

from relay.cli.output import say
from relay.wording import counted

PREFIX = "outbox-"  # of the names of threads that listeners run in
PATIENCE_S = 0.5  # for threads that have nothing to do, and were told so


def leave(code: int) -> None:
    """End the process, when everything that can be put in order is.

    Raises:
        typer.Exit: Always, unless a thread hangs: then the process ends here.
    """
    deadline = monotonic() + PATIENCE_S
    threads = [t for t in threading.enumerate() if t.name.startswith(PREFIX) and not t.daemon]
    for thread in threads:
        thread.join(max(deadline - monotonic(), 0))
    if hanging := sum(thread.is_alive() for thread in threads):
        say(f"left behind: {counted(hanging, 'call')} of a listener that did not end")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)
