"""``outbox demo`` and ``outbox extract``: run the reference worker, with and without a relay."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import TRY, app, examples
from outbox_cli.terminal.output import as_json as json_text
from outbox_cli.terminal.output import program, say, stderr, stdout
from outbox_cli.terminal.settings import operator_settings, start_logging

if TYPE_CHECKING:
    from outbox_demo.report import Report
    from relay.settings import Settings

READS = "Files (.txt, .md, .html, .pdf) and folders of them. If a named file cannot be read, the exit code is 1."


@app.command(
    rich_help_panel=TRY,
    epilog=examples("outbox demo", "outbox demo README.md docs/  # your own documents", "outbox demo --open"),
)
def demo(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help=f"{READS} Default: the descriptions of the installed Python packages.", metavar="PATH"),
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Afterwards, open the dashboard on this database in a browser.")
    ] = False,
) -> None:
    """Run the whole chain: read documents, commit results and messages, deliver them, build topic graphs.

    No setup is needed: without a configured database it creates outbox.db in the current directory.
    """

    with _needing_the_extra():
        from outbox_demo.demo import run
    from relay.admin.access.opening import reaching

    settings = operator_settings()
    settings.require_database_folder()
    _quiet_logging(settings)
    try:
        with reaching(settings.database):
            report = asyncio.run(run(settings, paths or [], stderr()))
    except KeyboardInterrupt:
        say("Interrupted. Committed messages wait in the database: run the demo again to deliver them.")
        raise typer.Exit(exits.INTERRUPTED) from None
    _print(report, settings)
    if open_:
        from outbox_cli.commands.look.dashboard import dashboard

        dashboard(port=0, allow_changes=True, open_browser=True)  # any free port: the browser is told which
    raise typer.Exit(_code(report))


@app.command(
    rich_help_panel=TRY,
    epilog=examples(
        "outbox extract docs/",
        "outbox extract docs/ && outbox relay --drain  # the demo in two steps",
    ),
)
def extract(
    paths: Annotated[list[Path], typer.Argument(help=READS, metavar="PATH")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each document.")] = False,
) -> None:
    """Extract topics from documents, and commit each result together with its message. A relay delivers them."""

    with _needing_the_extra():
        from outbox_demo.demo import sources, work
        from outbox_demo.report import Report
    from relay.admin.access.opening import opened
    from relay.databases.rights import COMMANDS, EXTRACT, WORKER
    from relay.platform.wording import counted

    report = Report()
    with opened(operator_settings(), needs=WORKER + COMMANDS + EXTRACT) as engine:
        for line in work(engine, sources(paths)[1], report):
            typer.echo(json_text(line.as_fields()) if as_json else line.as_text())
    waits = f"; a relay delivers {'it' if len(report.new) == 1 else 'them'}" if report.new else ""
    for sentence in (*report.not_read, report.extracted, f"{counted(len(report.new), 'message')} committed{waits}."):
        say(sentence)
    raise typer.Exit(exits.FAILED if report.fell_short else exits.OK)


@contextmanager
def _needing_the_extra() -> Iterator[None]:
    """Translate the error of a missing library for reading documents: name the extra to install.

    Raises:
        Unusable: A library is missing.
    """
    from outbox.errors import Unusable

    try:
        yield
    except ModuleNotFoundError as error:
        raise Unusable(
            f"the reference worker reads documents with {error.name}, which is not installed: install the extra demo, "
            "in a checkout with pip install '.[demo]'"
        ) from error


def _print(report: Report, settings: Settings) -> None:
    from outbox_demo.demo import where
    from outbox_demo.report import rendered

    for sentence in report.not_read:
        say(sentence)
    console = stdout()
    console.print()
    console.print(rendered(report, expand=console.is_terminal))
    console.print()
    console.print(f"The database is {where(settings.database)}. Try next:", soft_wrap=True)
    again = (
        (f"{program()} status", "what waits, and what was delivered"),
        (f"{program()} dashboard", "the same in a browser, with the topic graphs"),
        (f"{program()} messages list --state delivered", "each message, and when"),
        (f"{program()} demo PATH...", "your own .txt, .md, .html and .pdf"),
    )
    width = max(len(command) for command, _ in again)
    for command, what in again:
        console.print(f"  {command:<{width}}   {what}", soft_wrap=True)


def _quiet_logging(settings: Settings) -> None:
    """Log only errors: the demo shows its progress itself."""
    start_logging(settings, level="warning" if settings.origin("log_level") == "the default" else None)


def _code(report: Report) -> int:
    return exits.FAILED if report.waiting or report.dead or report.fell_short else exits.OK
