"""Ask for confirmation, and show progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from outbox_cli.terminal.output import stderr


def confirmed(question: str, *, yes: bool) -> bool:
    """Return whether to continue.

    Raises:
        BadParameter: There is no terminal to ask on.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on: pass --yes to go on without confirmation")
    return typer.confirm(question, err=True)


def refuse_empty(given: dict[str, str | None]) -> None:
    """Refuse empty options, for example from an unset shell variable: some would choose everything.

    Raises:
        BadParameter: An option is empty.
    """
    for option, text in given.items():
        if text == "":
            raise typer.BadParameter(f"{option} is empty: give a value, or leave it out")


@contextmanager
def counting(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; yield a function that takes the count so far."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = stderr()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda count: progress.update(task, completed=count)
