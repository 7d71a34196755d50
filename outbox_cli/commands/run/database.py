"""``outbox db``: create the tables, check them, print their SQL and the rights of each role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from outbox_cli.terminal.commands import RUN, examples, group
from outbox_cli.terminal.output import say
from outbox_cli.terminal.settings import operator_settings
from relay.databases import names

if TYPE_CHECKING:
    from relay.settings import Settings

    Dialect = str
else:
    Dialect = Literal[*names()]

db = group("db", RUN, "Create and check the tables.")


Branch = Literal["outbox", "content"]
Only = Annotated[
    Branch | None,
    typer.Option(
        "--only",
        help="[bold]outbox[/]: without the content tables, which the baseline listener needs. "
        "[bold]content[/]: only the content tables.",
    ),
]


@db.command(
    epilog=examples(
        "outbox db upgrade",
        "outbox db upgrade --plan  # only print what would be done",
        "outbox db upgrade --only outbox  # in an application that stores its content elsewhere",
    )
)
def upgrade(
    only: Only = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be done, and do nothing.")] = False,
) -> None:
    """Bring the database to the newest schema. An SQLite file is created. A repeated run changes nothing."""
    from relay.admin.access.opening import reaching
    from relay.databases import migrations

    settings = operator_settings()
    settings.require_database_folder()
    with reaching(settings.database):
        if plan:
            _plan(settings, only)
            return
        done = migrations.upgrade(settings.database_url, schema=settings.schema_name, only=only)
        warning = _creators(settings)
    for revision in done:
        typer.echo(revision)
    say(f"{settings.database} is up to date" + (f": applied {len(done)}" if done else ", nothing to do"))
    if warning:
        say(f"warning: {warning}")


@db.command(epilog=examples("outbox db check && outbox relay"))
def check() -> None:
    """Check that this release can use the schema. Exits with 3 if it cannot."""
    from relay.admin.access.opening import opened
    from relay.databases import migrations

    settings = operator_settings()
    with opened(settings):
        missing = migrations.pending(settings.database)
    say(f"{settings.database} can be used" + (f"; not applied: {', '.join(missing)}" if missing else ""))


@db.command(
    epilog=examples(
        "outbox db sql > outbox.sql",
        "outbox db sql --only outbox --schema messaging  # to paste into your own revision",
    )
)
def sql(
    dialect: Annotated[Dialect, typer.Option(help="The database that the SQL is for.")] = "postgresql",
    only: Only = None,
    schema: Annotated[
        str | None, typer.Option(help="The PostgreSQL schema of the outbox; default: OUTBOX_SCHEMA.")
    ] = None,
) -> None:
    """Print the migrations as SQL. No database is used."""
    from relay.databases import migrations

    schema = schema or operator_settings().schema_name
    typer.echo(migrations.sql(dialect, schema=schema, only=only), nl=False)


@db.command(
    epilog=examples(
        "outbox db grants --worker app --relay outbox | psql $DATABASE_URL",
        "outbox db grants --migrator deploy  # also what that role needs before the first upgrade",
    )
)
def grants(
    worker: Annotated[str, typer.Option(help="The role of processes that emit.")] = "outbox_worker",
    relay: Annotated[str, typer.Option(help="The role of relays.")] = "outbox_relay",
    migrator: Annotated[str | None, typer.Option(help="The role that runs outbox db upgrade.")] = None,
    schema: Annotated[str | None, typer.Option(help="The PostgreSQL schema; default: OUTBOX_SCHEMA.")] = None,
    only: Only = None,
) -> None:
    """Print the rights that workers, relays and the migrator need on PostgreSQL. No database is used."""
    from relay.admin.grants import grants as statements

    schema = schema or operator_settings().schema_name
    text = statements(schema=schema, worker=worker, relay=relay, migrator=migrator, content=only != "outbox")
    typer.echo(text, nl=False)


def _creators(settings: Settings) -> str | None:
    """Return a warning about other roles that may CREATE in the schema; ``None`` if there are none."""
    from relay.databases.rights import MAY_RUN

    with settings.database.short_engine() as engine, engine.connect() as connection:
        found = settings.database.dialect.others_that_create(connection)
    return f"{found}, where our tables are: {MAY_RUN}. Run {found.remedy}" if found else None


def _plan(settings: Settings, only: Branch | None) -> None:
    from relay.databases import migrations

    database = settings.database
    if database.is_file and not database.path.exists():
        say(f"would create {database.path.absolute()}, then apply every migration")
        return
    planned = migrations.planned(database, only=only)
    for revision in planned:
        typer.echo(revision)
    say(f"{len(planned)} to apply to {database}" if planned else f"nothing to do: {database} is up to date")
