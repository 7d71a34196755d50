"""The receiving API on a real port of the loopback address, in the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from listeners.http import Receiver, create_app
from relay.databases.database import Database
from relay.serving import listen, make_server


@asynccontextmanager
async def serving(
    app: FastAPI, *, receive_timeout_s: float = 20.0, proxies: tuple[str, ...] = ()
) -> AsyncIterator[str]:
    """Serve an application; yields its URL."""
    server = make_server(app, receive_timeout_s=receive_timeout_s, grace_s=5, proxies=proxies)
    listening = listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True  # no test leaves anything to wait for
        await task


@asynccontextmanager
async def calling(
    receiver: Receiver, database_url: str = "sqlite:///none.db", *, receive_timeout_s: float = 20.0
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a receiver; yields a client that calls it."""
    app = create_app(receiver, Database.parse(database_url))
    async with (
        serving(app, receive_timeout_s=receive_timeout_s) as url,
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, verify=False) as client,
    ):
        yield client
