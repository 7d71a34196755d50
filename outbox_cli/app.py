"""The commands, and the handling of their errors.

This module imports nothing heavy: a command imports what it needs when it runs, so ``outbox --help`` is fast.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import threading
from typing import Annotated

import typer

from outbox_cli.commands.act import cancel, dead, replay
from outbox_cli.commands.look import audit, content, dashboard, destinations, doctor, messages, status
from outbox_cli.commands.run import config, consume, database, demo, emit, relay, serve
from outbox_cli.terminal import exits
from outbox_cli.terminal.output import say
from outbox_cli.terminal.shutdown import keep_interrupts_out_of_the_log, leave_behind

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

TRY, RUN, LOOK, ACT = "Try it", "Run it", "Look at it", "Act on it"

demo.register(app, TRY)
database.register(app, RUN)
relay.register(app, RUN)
serve.register(app, RUN)
emit.register(app, RUN)
consume.register(app, RUN)
config.register(app, RUN)
status.register(app, LOOK)
dashboard.register(app, LOOK)
messages.register(app, LOOK)
content.register(app, LOOK)
destinations.register(app, LOOK, ACT)
audit.register(app, LOOK)
doctor.register(app, LOOK)
cancel.register(app, ACT)
dead.register(app, ACT)
replay.register(app, ACT)


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
        app()
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
