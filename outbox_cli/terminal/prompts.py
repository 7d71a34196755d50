"""Ask for confirmation, and show progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.output import say, stderr


def carry_out(
    doing: str, what: str, total: int, change: Callable[..., int], *, dry_run: bool, question: str | None
) -> int:
    """Make a change, with a progress bar on a terminal, and return its count; end the command if it must not act.

    Args:
        doing: The action: ``"cancel"``.
        what: Its objects: ``"3 messages"``.
        total: Their count.
        change: Makes the change; takes a function ``on_progress``.
        dry_run: Whether the command only shows what would be done.
        question: The question to ask first; ``None``: do not ask.

    Raises:
        BadParameter: There is no terminal to ask on.
    """
    if dry_run:
        say(f"would {doing} {what}; nothing was done")
        raise typer.Exit(exits.OK)
    if question is not None and not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on: pass --yes to go on without confirmation")
    if question is not None and not typer.confirm(question, err=True):
        say("nothing was done")
        raise typer.Exit(exits.FAILED)
    with counting(doing, total) as tell:
        return change(on_progress=tell)


@contextmanager
def counting(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; yield a function that takes the count so far."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = stderr()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda count: progress.update(task, completed=count)
