"""``outbox dashboard``: show the outbox in a browser, and act on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import LOOK, app, examples
from outbox_cli.terminal.output import say
from outbox_cli.terminal.settings import operator_settings, put_current_directory_on_path, start_logging

if TYPE_CHECKING:
    from outbox_cli.dashboard import Tokens
    from relay.serving.clients import Networks

OPERATOR, VIEWER = "OUTBOX_DASHBOARD_TOKEN", "OUTBOX_DASHBOARD_VIEWER_TOKEN"
LOCAL = ("localhost", "127.0.0.1", "::1")


@app.command(
    rich_help_panel=LOOK,
    epilog=examples(
        "outbox dashboard",
        "outbox dashboard --allow-changes --port 8080",
        "ssh -L 9811:127.0.0.1:9811 db-host outbox dashboard  # open it on another machine",
        "outbox dashboard --host 0.0.0.0 --allow-remote --hostname outbox.example.com "
        "--proxy 10.0.0.0/8 --user-header X-Forwarded-User",
    )
    + "\n\n"
    + exits.HELP,
)
def dashboard(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0: any free port.")] = 9811,
    refresh: Annotated[
        int, typer.Option(min=1, max=3600, help="Seconds between two reads of the database, for all pages together.")
    ] = 1,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Let operators retry, discard, pause, resume and replay.")
    ] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Permit a --host that other machines reach, over plain HTTP.")
    ] = False,
    hostname: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further host name to answer to.")
    ] = None,
    proxy: Annotated[
        list[str] | None, typer.Option(metavar="NETWORK", help="A proxy whose --user-header is trusted.")
    ] = None,
    user_header: Annotated[
        str | None, typer.Option(metavar="NAME", help="The header in which that proxy names the user.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the dashboard in a browser.")] = False,
) -> None:
    """Show the outbox in a browser: plots, messages, dead letters, destinations. With --allow-changes, act on it.

    The dashboard asks for the token in OUTBOX_DASHBOARD_TOKEN or
    OUTBOX_DASHBOARD_TOKEN_FILE. If neither is set, it prints a new token.
    The token in OUTBOX_DASHBOARD_VIEWER_TOKEN permits no changes.
    """
    import asyncio

    from outbox_cli.dashboard import Access, create_app
    from relay.admin.access.opening import opened
    from relay.settings import load

    if not _is_loopback(host) and not allow_remote:
        raise typer.BadParameter(
            f"--host {host}: other machines could reach it, and the token would cross the network unencrypted; "
            "use an ssh tunnel, or pass --allow-remote behind a proxy that speaks TLS"
        )
    if (user_header is None) != (not proxy):
        raise typer.BadParameter(
            "--user-header and --proxy must be given together: a header is only trusted from a proxy"
        )
    settings = operator_settings()
    with opened(settings):
        pass
    put_current_directory_on_path()
    tokens, printed, secrets = _tokens()
    start_logging(settings, *secrets)
    access = Access(tokens=tokens, allow_changes=allow_changes, user_header=user_header, proxies=_networks(proxy or []))
    hosts = [host, *LOCAL, *(hostname or [])]
    app = create_app(settings, access=access, hosts=hosts, refresh_s=refresh, load_settings=lambda: load({}))
    asyncio.run(_serve(app, host, port, printed, open_browser=open_browser))


async def _serve(app: Any, host: str, port: int, token: str | None, *, open_browser: bool) -> None:
    """Serve until Ctrl-C."""
    from relay.serving import listen, make_server, serve, url_of

    listening = listen(host, port)
    url = f"{url_of(listening)}/"
    say(f"open {url} - Ctrl-C ends it")
    if token is not None:
        say(f"the token, for this run only: {token}")
    if open_browser:
        _open(url)
    await serve(make_server(app, receive_timeout_s=10, grace_s=1), listening)


def _networks(proxies: list[str]) -> Networks:
    from relay.serving.clients import Networks

    try:
        return Networks(proxies)
    except ValueError as error:
        raise typer.BadParameter(f"--proxy: {error}") from None


def _tokens() -> tuple[Tokens, str | None, set[str]]:
    """Return the tokens, the token to print, and all tokens that no log may show.

    Raises:
        SettingsError: A token is too short, or both are the same.
    """
    import os

    from outbox.errors import SettingsError
    from outbox_cli.dashboard import Tokens
    from outbox_cli.dashboard.access.tokens import SHORTEST, new_token
    from relay.settings.environment import look_up

    given = {name: look_up(name, os.environ) for name in (OPERATOR, VIEWER)}
    for name, token in given.items():
        if token is not None and len(token) < SHORTEST:
            raise SettingsError(
                f"{name} is too short: use {SHORTEST} characters or more, such as from openssl rand -hex 24"
            )
    if given[OPERATOR] is not None and given[OPERATOR] == given[VIEWER]:
        raise SettingsError(f"{OPERATOR} and {VIEWER} are the same: viewers would be operators")
    printed = None if given[OPERATOR] is not None else new_token()
    tokens = Tokens(operator=given[OPERATOR] or printed, viewer=given[VIEWER])
    return tokens, printed, {token for token in given.values() if token is not None}


def _open(url: str) -> None:
    import webbrowser

    if not webbrowser.open(url):
        say(f"no browser could be started: open {url} yourself")


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
