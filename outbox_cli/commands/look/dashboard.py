"""``outbox dashboard``: how things stand, in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.examples import examples
from outbox_cli.terminal.output import say

EVERYBODY = "*"


def register(app: typer.Typer, panel: str) -> None:
    app.command(
        rich_help_panel=panel,
        epilog=examples(
            "outbox dashboard",
            "outbox dashboard --port 8080 --refresh 2",
            "ssh -L 9811:127.0.0.1:9811 db-host outbox dashboard  # look at it from elsewhere",
        )
        + "\n\n"
        + exits.HELP,
    )(dashboard)


def dashboard(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0: any.")] = 9811,
    refresh: Annotated[int, typer.Option(min=1, max=3600, help="Seconds until the page loads itself again.")] = 5,
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Let --host be an address that others reach: it asks nobody who they are."),
    ] = False,
) -> None:
    """Show what `status` shows as a page in a browser. It can change nothing."""
    import asyncio

    from outbox_cli.dashboard import create_app
    from outbox_cli.terminal.settings import operator_settings
    from relay.admin.access.opening import opened
    from relay.observe.logging import configure
    from relay.serving import listen, make_server, serve

    is_local = _is_loopback(host)
    if not is_local and not allow_remote:
        raise typer.BadParameter(
            f"--host {host}: others than this machine could read the page, and it asks nobody who they are; "
            "use an ssh tunnel, or pass --allow-remote behind a gateway that does ask"
        )
    settings = operator_settings()
    with opened(settings):
        pass
    configure(log_format=settings.log_format, level=settings.log_level, secrets=settings.secrets())
    hosts = [host, "localhost", "127.0.0.1", "[::1]"] if is_local else [EVERYBODY]
    app = create_app(settings, hosts=hosts, refresh_s=refresh)

    async def run() -> None:
        listening = listen(host, port)
        shown, number = listening.getsockname()[:2]
        say(f"look at http://{f'[{shown}]' if ':' in shown else shown}:{number}/ - Ctrl-C ends it")
        await serve(make_server(app, receive_timeout_s=10, grace_s=1), listening)

    asyncio.run(run())
    raise typer.Exit(exits.OK)


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
