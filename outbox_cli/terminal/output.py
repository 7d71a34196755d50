"""Print data to stdout and messages to stderr, as tables for people or JSON for scripts."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table

from relay.platform.wording import utc

UNLIMITED = 500  # columns if there is no terminal: a pipe gets every cell in full
UNBROKEN = 36  # characters that are not split: the length of a message's id, which is copied
GAP = 3  # columns between two columns

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def stdout() -> Console:
    """Return the console for data; without a terminal it is as wide as necessary."""
    return _console(stderr=False)


def stderr() -> Console:
    """Return the console for messages and progress."""
    return _console(stderr=True)


def say(message: str) -> None:
    """Print a message on stderr."""
    from relay.observe.text import one_line, redacted

    shown = "\n".join(map(one_line, redacted(pasteable(message)).split("\n")))
    stderr().print(shown, soft_wrap=True)


def program() -> str:
    """Return the command that runs this program again: ``outbox`` if it is on the path, else the path of this call."""
    called = Path(sys.argv[0])
    found = shutil.which("outbox")
    if called.name != "outbox" or (found and Path(found).resolve() == called.resolve()):
        return "outbox"
    return shlex.quote(sys.argv[0])


def pasteable(text: str) -> str:
    """Return a text with its quoted commands in the form in which they can be typed here."""
    return text.replace("`outbox ", f"`{program()} ")


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print one JSON document; dataclasses become objects, times ISO 8601 in UTC."""
    sys.stdout.write(as_json(value, indent=indent) + "\n")
    sys.stdout.flush()


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Return a JSON document for stdout: JSON is UTF-8; in another encoding it may hold only ASCII.

    Characters that a terminal would obey, or not show, are escaped (text direction, controls beyond ASCII).
    """
    text = json.dumps(value, default=_plain, indent=indent, ensure_ascii=not _is_utf8())
    return _SUSPECT.sub(_escaped, text)


_SUSPECT = re.compile(r"[^\n -~]")  # any line break is ours, because json has escaped those in the data


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def _is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf8")


def show(found: Sequence[Any], made: Callable[[], object], *, as_json: bool, otherwise: str | None = None) -> None:
    """Print what was found, for scripts or for people.

    Args:
        found: The items.
        made: Returns the table of them.
        as_json: Whether to print JSON.
        otherwise: The message for people if there are no items.
    """
    if as_json:
        print_json(found)
    elif found:
        stdout().print(made())
    elif otherwise is not None:
        say(otherwise)


def table(*columns: str, rows: Iterable[Iterable[object]] = (), right: Iterable[str] = ()) -> Table:
    """Return a table without a frame; the columns in ``right`` are aligned to the right.

    Nothing is cut off: if the terminal is too narrow for the words, each row becomes a list of its cells.
    """
    cells = [[cell(value) for value in row] for row in rows]
    widths = _widths([[header, *(row[index] for row in cells)] for index, header in enumerate(columns)])
    if cells and widths is None:
        return _records(columns, cells)
    made = _bare()
    for index, column in enumerate(columns):
        justify: JustifyMethod = "right" if column in set(right) else "left"
        width = widths[index] if cells and widths else None
        made.add_column(column, justify=justify, width=width, overflow="fold", header_style="bold")
    for row in cells:
        made.add_row(*row)
    return made


def _widths(columns: list[list[str]]) -> list[int] | None:
    """Return the width of each column, if they fit: the widest columns shrink, but not below their longest word."""
    room = stdout().width - GAP * (len(columns) - 1)
    widths = [max(map(cell_len, column)) for column in columns]
    least = [
        min(UNBROKEN, max(cell_len(word) for text in column for word in [*text.split(), ""])) for column in columns
    ]
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max((i for i, width in enumerate(widths) if width > least[i]), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _records(columns: Iterable[str], rows: list[list[str]]) -> Table:
    made = _bare()
    made.show_header = False
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for number, row in enumerate(rows):
        if number:
            made.add_row()
        for column, value in zip(columns, row, strict=True):
            made.add_row(column, value)
    return made


def _bare() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))


def cell(value: object) -> str:
    """Return a value as a table cell: ``None`` is a dash, and no control character reaches the terminal."""
    from relay.observe.text import one_line

    match value:
        case None | "":
            return "–" if _is_utf8() else "-"
        case datetime():
            return utc(value)
        case int() if not isinstance(value, bool):
            return f"{value:,}"
    return one_line(str(value))


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=UNLIMITED)
    return console


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value)
