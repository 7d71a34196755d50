"""The command line, at which each module of `outbox_cli.commands` registers its commands, and the end of their help."""

from __future__ import annotations

import typer
from rich.markup import escape

from outbox_cli.terminal import exits

TRY, RUN, LOOK, ACT = "Try it", "Run it", "Look at it", "Act on it"  # the panels of the help

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


def group(name: str, panel: str, about: str) -> typer.Typer:
    """Return a new group of commands."""
    made = typer.Typer(help=about, no_args_is_help=True)
    app.add_typer(made, name=name, rich_help_panel=panel)
    return made


def examples(*lines: str) -> str:
    """Return commands, each on a separate line, with a comment after a ``#``."""
    shown = [_line(*map(str.strip, line.partition("#")[::2])) for line in lines]
    return "\n".join(["[bold]Examples[/]", *shown])


def _line(command: str, comment: str) -> str:
    return f"  $ {escape(command)}" + (f"  [dim]# {escape(comment)}[/]" if comment else "")
