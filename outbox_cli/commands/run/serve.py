"""``outbox serve``: the receiving API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import RUN, app, examples
from outbox_cli.terminal.output import say
from outbox_cli.terminal.settings import health_port, operator_settings, put_current_directory_on_path, start_logging

if TYPE_CHECKING:
    from listeners.http import Receiver
    from relay.settings import Settings


@app.command(
    rich_help_panel=RUN,
    epilog=examples(
        "outbox serve",
        "outbox serve --port 8080",
        "outbox serve --host 0.0.0.0  # reachable from other machines: behind a firewall or a gateway",
    )
    + "\n\nThe secret that callers need is in INTERNAL_API_SECRET (or INTERNAL_API_SECRET_FILE). During its "
    "rotation, INTERNAL_API_SECRET_PREVIOUS holds the old one. All other settings are in the table \\[serve] of "
    "outbox.toml. SIGTERM and Ctrl-C stop it after the calls under way.\n\n" + exits.HELP,
)
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on; default: this machine only.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="The port; default: 3000; 0: any.")] = None,
    handler: Annotated[
        str | None, typer.Option(metavar="MODULE:CALLABLE", help="The listener; default: the baseline listener.")
    ] = None,
    handler_timeout: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long a call of the handler may take; default: 30s; none: no limit."),
    ] = None,
    require_signature: Annotated[
        bool, typer.Option("--require-signature", help="Refuse calls without a signature.")
    ] = False,
    allow_weak_secret: Annotated[
        bool, typer.Option("--allow-weak-secret", help="Accept a secret of less than 32 characters.")
    ] = False,
) -> None:
    """Receive extraction.completed over HTTP, and build baselines."""
    import asyncio

    given = {
        "host": host,
        "port": port,
        "handler": handler,
        "handler_timeout_s": handler_timeout,
        "require_signature": require_signature or None,
        "allow_weak_secret": allow_weak_secret or None,
    }
    settings = _with(operator_settings(), {name: value for name, value in given.items() if value is not None})
    settings.require_database_file()
    put_current_directory_on_path()
    asyncio.run(_run(settings))


def _with(settings: Settings, given: dict[str, object]) -> Settings:
    from pydantic import ValidationError

    from relay.settings.problems import settings_error

    try:
        return settings.model_copy(update={"serve": settings.serve.changed(given)})
    except ValidationError as error:
        said = settings_error(error, lambda name: f"--{name.removesuffix('_s').replace('_', '-')}")
        raise typer.BadParameter(str(said)) from None


async def _run(settings: Settings) -> None:
    from listeners.http import Readiness, create_app
    from relay.observe import process
    from relay.observe.health import HealthServer
    from relay.serving import listen, make_server, serve, url_of
    from relay.serving.server import RESERVED

    serving = settings.serve
    readiness = Readiness(settings.database)
    app = create_app(_receiver(settings), settings.database, readiness=readiness)
    _check_schema(settings)
    server = make_server(
        app,
        receive_timeout_s=2 * serving.receive_timeout_s,
        grace_s=settings.grace_s,
        reserved=RESERVED + serving.concurrency,
        proxies=serving.proxies,
    )
    listening = listen(serving.host, serving.port)
    say(f"receiving on {url_of(listening)}")
    # Metrics are on the health port, not on the port that callers use.
    port = health_port(settings)
    async with HealthServer(readiness, port, host=settings.health_host, metrics=process.text, look=readiness.look):
        await serve(server, listening)


def _receiver(settings: Settings) -> Receiver:
    import dataclasses
    import os

    from listeners.http import Limits, Receiver
    from relay.observe import tracing
    from relay.settings.environment import look_up

    serving = settings.serve
    limits = {each.name for each in dataclasses.fields(Limits)}  # they have the same names in both
    secrets = serving.secrets(lambda name: look_up(name, os.environ))
    signing = serving.signing_secrets(lambda name: look_up(name, os.environ))
    tracing.configure(children=settings.trace_children)
    start_logging(settings, *secrets, *signing)
    return Receiver(
        secrets,
        handler=serving.handler,
        database=settings.database,
        signing_secrets=signing,
        require_signature=serving.require_signature,
        allow_weak_secret=serving.allow_weak_secret,
        limits=Limits(**serving.model_dump(include=limits)),
    )


def _check_schema(settings: Settings) -> None:
    """Refuse a schema that cannot be used. A database that is down now may come back: /readyz reports it until then."""
    from outbox.errors import SchemaError, Unusable
    from relay.admin.access.opening import opened
    from relay.databases.rights import BASELINE, RELAY
    from relay.platform.guide import BASELINE_LISTENER

    needs = RELAY + BASELINE if settings.serve.handler == BASELINE_LISTENER else RELAY
    try:
        with opened(settings, needs=needs):
            return
    except SchemaError:
        raise
    except Unusable as error:
        say(f"not ready yet: {error}")
