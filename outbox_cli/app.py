"""The commands, and the handling of their errors.

This module imports nothing heavy: a command imports what it needs when it runs, so ``outbox --help`` is fast. Only the
command that the arguments name is imported and built.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import app
from outbox_cli.terminal.output import say
from outbox_cli.terminal.shutdown import keep_interrupts_out_of_the_log, leave_behind, repeating_lost_interrupts

# module → the names of its commands, in the order of the help
MODULES = {
    "run.demo": ["demo", "extract"],
    "run.database": ["db"],
    "run.relay": ["relay"],
    "run.serve": ["serve"],
    "run.emit": ["emit"],
    "run.consume": ["consume"],
    "run.config": ["config"],
    "look.status": ["status", "relays"],
    "look.dashboard": ["dashboard"],
    "look.messages": ["messages"],
    "look.content": ["content"],
    "look.destinations": ["destinations", "pause", "resume"],
    "look.audit": ["audit"],
    "look.doctor": ["doctor"],
    "act.cancel": ["cancel"],
    "act.dead": ["dead"],
    "act.replay": ["replay"],
}


def command_line(arguments: Sequence[str] = ()) -> typer.Typer:
    """Return the command line: the command that the arguments name, or all commands if they begin with none.

    To import and build all commands would take a third of a short command's time.
    """
    named = [module for module, commands in MODULES.items() if set(arguments[:1]) & set(commands)]
    for module in named or MODULES:
        import_module(f"{__package__}.commands.{module}")
    return app


def _version(asked: bool) -> None:
    if asked:
        from outbox import __version__

        typer.echo(f"neverlost {__version__}")
        raise typer.Exit


@app.callback()
def outbox(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command that the arguments name: the console script ``outbox``."""
    _replace_closed_streams()
    _print_anything()
    known = threading.enumerate()
    keep_interrupts_out_of_the_log()
    with repeating_lost_interrupts():
        code = _run()
    leave_behind(code, known)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.exit(code)
    # The reader of our output is gone, or the disk is full: discard what the interpreter flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(exits.FAILED)


def _replace_closed_streams() -> None:
    """Replace closed streams (``>&-``), for which Python has None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for as long as the process lives)


def _print_anything() -> None:
    """Print characters that a stream's encoding lacks in escaped form, in the way of Python and JSON."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run() -> int:
    try:
        command_line(sys.argv[1:])()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else exits.OK
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except Exception as error:
        from outbox.errors import OutboxError, Unusable

        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            say(f"outbox: the output cannot be written: {error.strerror}")
            return exits.FAILED
        if isinstance(error, UnicodeEncodeError):  # the bytes of an argument that were read as surrogates
            say(f"outbox: {ascii(error.object)[:60]} is not UTF-8 text: pass it in UTF-8")
            return exits.USAGE
        if not isinstance(error, OutboxError):
            raise
        say(f"outbox: {error}")
        return exits.UNUSABLE if isinstance(error, Unusable) else exits.FAILED
    return exits.OK
