"""Asking first, and showing how far something has come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from outbox_cli.terminal.output import stderr


def confirmed(question: str, *, yes: bool) -> bool:
    """Whether to go on.

    Raises:
        BadParameter: There is nobody to ask.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on: pass --yes to go on without a question")
    return typer.confirm(question, err=True)


def refuse_empty(given: dict[str, str | None]) -> None:
    """Refuse options that are empty, as of a shell variable that is not set: some would choose everything.

    Raises:
        BadParameter: One of them is.
    """
    for option, text in given.items():
        if text == "":
            raise typer.BadParameter(f"{option} is empty: say what to look for, or leave it out")


@contextmanager
def counting(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal, if there is one; yields what takes the count so far."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = stderr()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda count: progress.update(task, completed=count)
