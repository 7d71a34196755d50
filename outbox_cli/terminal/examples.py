"""Examples at the end of a command's help."""

from __future__ import annotations

from rich.markup import escape


def examples(*lines: str) -> str:
    """Return commands, each on a line of its own, with a comment after a ``#``."""
    shown = [_line(*map(str.strip, line.partition("#")[::2])) for line in lines]
    return "\n".join(["[bold]Examples[/]", *shown])


def _line(command: str, comment: str) -> str:
    return f"  $ {escape(command)}" + (f"  [dim]# {escape(comment)}[/]" if comment else "")
