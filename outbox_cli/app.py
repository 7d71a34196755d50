"""The commands, and the handling of their errors.

This module imports nothing heavy: a command imports what it needs when it runs, so ``outbox --help`` is fast. Of the
commands, only the one that the arguments name is imported and built.
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
from outbox_cli.terminal.output import say
from outbox_cli.terminal.shutdown import keep_interrupts_out_of_the_log, leave_behind

TRY, RUN, LOOK, ACT = "Try it", "Run it", "Look at it", "Act on it"

# module → the panels of the help in which its commands stand, and the names of its commands
MODULES = {
    "run.demo": ([TRY], ["demo", "extract"]),
    "run.database": ([RUN], ["db"]),
    "run.relay": ([RUN], ["relay"]),
    "run.serve": ([RUN], ["serve"]),
    "run.emit": ([RUN], ["emit"]),
    "run.consume": ([RUN], ["consume"]),
    "run.config": ([RUN], ["config"]),
    "look.status": ([LOOK], ["status", "relays"]),
    "look.dashboard": ([LOOK], ["dashboard"]),
    "look.messages": ([LOOK], ["messages"]),
    "look.content": ([LOOK], ["content"]),
    "look.destinations": ([LOOK, ACT], ["destinations", "pause", "resume"]),
    "look.audit": ([LOOK], ["audit"]),
    "look.doctor": ([LOOK], ["doctor"]),
    "act.cancel": ([ACT], ["cancel"]),
    "act.dead": ([ACT], ["dead"]),
    "act.replay": ([ACT], ["replay"]),
}


def command_line(arguments: Sequence[str] = ()) -> typer.Typer:
    """Return the command line: the command that the arguments name, or all commands if they begin with none.

    To import and build all of them takes a third of a short command's time.
    """
    app = typer.Typer(
        name="outbox",
        help="A transactional outbox: commit a result and its message together; relays deliver it to its destinations.",
        epilog=(
            "Start with [bold]outbox demo[/], which needs no setup. Settings come from flags, then the environment, "
            "then ./outbox.toml: see [bold]outbox config show[/].\n\n" + exits.HELP
        ),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(outbox)
    named = [module for module, (_, commands) in MODULES.items() if set(arguments[:1]) & set(commands)]
    for module in named or MODULES:
        import_module(f"{__package__}.commands.{module}").register(app, *MODULES[module][0])
    return app


def _version(asked: bool) -> None:
    if asked:
        from outbox import __version__

        typer.echo(f"neverlost {__version__}")
        raise typer.Exit


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
    code = _run()
    leave_behind(code, known)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.exit(code)
    # The reader of our output has gone, or the disk is full: discard what the interpreter flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(exits.FAILED)


def _replace_closed_streams() -> None:
    """Replace closed streams (``>&-``), for which Python has None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for as long as the process lives)


def _print_anything() -> None:
    """Print characters that a stream's encoding lacks in escaped form, as Python and JSON write them."""
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
        if not isinstance(error, OutboxError):
            raise
        say(f"outbox: {error}")
        return exits.UNUSABLE if isinstance(error, Unusable) else exits.FAILED
    return exits.OK
