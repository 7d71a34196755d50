"""The relay and HTTP together: the guide's two variables, rotation while messages flow, and no secret anywhere."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from support.databases import Database
from support.ports import free_port
from support.processes import Spawner
from support.receivers import Receiver, Request, answering
from support.secrecy import everything_in
from support.waiting import eventually_async

import relay.databases.database
from listeners.http import Receiver as Api
from listeners.http import create_app
from outbox import Message, emit
from relay.destinations.http.settings import HttpSettings
from relay.relay import Relay
from relay.serving import listen, make_server
from relay.settings import Settings

NEW = "the-new-secret-0123456789abcdef0123456789"
OLD = "the-old-secret-0123456789abcdef0123456789"
PATH = "/extraction/internal/completed"


def write(database: Database, *content_ids: str, type_: str = "extraction.completed") -> None:
    with database.engine.begin() as connection:
        for content_id in content_ids:
            emit(connection, type_, {"contentId": content_id})


def settings(database: Database, url: str, **http: Any) -> Settings:
    api = HttpSettings(**({"url": url, "secret": NEW, "backoff_s": 0.05, "backoff_max_s": 0.2} | http))
    return Settings(database_url=database.url, destinations={"api": api}, health_port=0, quiet_s=0.2)


def delivered(database: Database) -> int:
    return int(database.scalar("SELECT count(*) FROM outbox_history"))


# ------------------------------------------------------------------ the two variables


async def test_the_guides_two_variables_are_all_it_takes(database: Database, spawn: Spawner) -> None:
    write(database, "test-content-id")
    async with Receiver() as receiver:
        env = {
            "DATABASE_URL": database.url,
            "API_URL": f"http://localhost:{receiver.port}/",
            "INTERNAL_API_SECRET": NEW,
        }
        process = spawn("outbox", "relay", "--drain", env=env)
        await eventually_async(lambda: not process.is_running, deadline_s=30)
        assert process.returncode == 0
        request = receiver.request
    assert (request.method, request.target) == ("POST", PATH)
    assert json.loads(request.body) == {"contentId": "test-content-id"}
    assert request.header("X-Internal-Secret") == NEW
    assert delivered(database) == 1


async def test_a_batch_reaches_our_own_receiver_and_a_bad_event_in_it_only_kills_itself(database: Database) -> None:
    handler = Remembering()
    write(database, *(f"c-{i}" for i in range(20)), "not ok", *(f"d-{i}" for i in range(20)))
    async with api([NEW], handler) as url, Relay(settings(database, url, batch=100)) as relay:
        await relay.drain()
    assert delivered(database) == 40
    assert len(handler.seen) == 40
    (dead,) = database.rows("SELECT reason FROM outbox_delivery WHERE state = 'dead'")
    assert "422" in dead.reason


async def test_an_outage_of_the_receiver_costs_no_message_an_attempt(database: Database) -> None:
    port = free_port()
    async with Relay(settings(database, f"http://127.0.0.1:{port}{PATH}")):
        write(database, *(f"c-{i}" for i in range(20)))
        await eventually_async(lambda: database.scalar("SELECT state FROM outbox_destination") == "paused")
        async with api([NEW], Remembering(), port=port):
            await eventually_async(lambda: delivered(database) == 20)
    assert database.rows("SELECT DISTINCT attempts FROM outbox_history") == [(1,)]


# ------------------------------------------------------------------------- rotation


class Remembering:
    """A handler that remembers the contents of its events."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, message: Message) -> None:
        self.seen.append(message.data["contentId"])


@asynccontextmanager
async def api(secrets: list[str], handler: Callable[[Message], None], port: int = 0) -> AsyncIterator[str]:
    """Run the receiving API, as `outbox serve` does."""
    receiver = Api(secrets, handler=handler)
    server = make_server(create_app(receiver, relay.databases.database.Database.parse("sqlite:///none.db")), grace_s=5)
    listening = listen("127.0.0.1", port)
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}{PATH}"
    finally:
        server.should_exit = True
        await task


class Flow:
    """Emits inside its `with` block, and remembers what; at most 50 messages are ahead of the receiver."""

    def __init__(self, database: Database, seen: list[str]) -> None:
        self.emitted: list[str] = []
        self._database = database
        self._seen = seen
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Flow":
        self._task = asyncio.create_task(self._emit())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _emit(self) -> None:
        while True:
            await eventually_async(lambda: len(self.emitted) - len(self._seen) < 50, deadline_s=60)
            content_id = f"c-{len(self.emitted)}"
            await asyncio.to_thread(write, self._database, content_id)
            self.emitted.append(content_id)

    async def goes_on(self) -> None:
        """Wait until a message that is emitted from now on has been delivered."""
        after = len(self.emitted)
        await eventually_async(lambda: any(int(each[2:]) > after for each in self._seen[-100:]))


async def rotate(steps: list[tuple[list[str], list[str]]], database: Database) -> None:
    """Go through (the sender's secrets, the receiver's secrets), current first, while messages flow.

    One of the two is restarted at each step. In the end every message has arrived, with no attempt lost.
    """
    handler = Remembering()
    port = free_port()
    async with Flow(database, handler.seen) as flow:
        for sender, receiver in steps:
            known = {"secret": sender[0], "secret_previous": sender[1] if len(sender) > 1 else None}
            async with api(receiver, handler, port) as url, Relay(settings(database, url, **known)):
                await flow.goes_on()
    async with api(steps[-1][1], handler, port) as url, Relay(settings(database, url, secret=steps[-1][0][0])) as last:
        await last.drain()
        await eventually_async(lambda: set(handler.seen) >= set(flow.emitted))
    assert database.rows("SELECT DISTINCT attempts FROM outbox_history") == [(1,)]
    assert database.scalar("SELECT count(*) FROM outbox_delivery") == 0


async def test_a_secret_is_rotated_in_three_steps_while_messages_flow(database: Database) -> None:
    await rotate([([OLD], [OLD]), ([OLD], [NEW, OLD]), ([NEW], [NEW, OLD]), ([NEW], [NEW])], database)


async def test_a_receiver_that_knows_one_secret_only_is_rotated_in_three_steps_too(database: Database) -> None:
    await rotate([([OLD], [OLD]), ([NEW, OLD], [OLD]), ([NEW, OLD], [NEW]), ([NEW], [NEW])], database)


# ----------------------------------------------------------------- no secret anywhere


HIDDEN = {
    "INTERNAL_API_SECRET": "hidden-shared-secret-0123456789abcdef",
    "INTERNAL_API_SECRET_PREVIOUS": "hidden-previous-secret-0123456789abc",
    "API_SIGNING_SECRET": "whsec_aGlkZGVuLXNpZ25pbmcta2V5LTAxMjM0NTY3ODk=",
    "PROXY_PASSWORD": "hidden-proxy-password",
    "HOOK_TOKEN": "hidden-token/of-a-hook",
}

CONFIGURATION = """
[destinations.refusing]
kind = "http"
events = ["refusing"]
url = "http://127.0.0.1:{port}/refuse?key=${{HOOK_TOKEN}}"
secret_env = "INTERNAL_API_SECRET"
signing_secret_env = "API_SIGNING_SECRET"
backoff_s = 0.05

[destinations.denying]
kind = "http"
events = ["denying"]
url = "http://127.0.0.1:{port}/deny"
secret_env = "INTERNAL_API_SECRET"
backoff_s = 0.05

[destinations.unreachable]
kind = "http"
events = ["unreachable"]
url = "https://api.internal/"
secret_env = "INTERNAL_API_SECRET"
proxy = "http://user:${{PROXY_PASSWORD}}@127.0.0.1:{unused}"
"""


async def repeat_what_came(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answers with the secret and every header it was sent, as some frameworks do when they fail."""
    repeated = json.dumps([request.target, request.header("x-internal-secret"), request.headers]).encode()
    await answering(422 if request.target.startswith("/refuse") else 401, repeated)(request, writer)


async def test_no_secret_appears_in_any_log_error_table_or_page(
    database: Database, spawn: Spawner, tmp_path: Path
) -> None:
    write(database, "a", "b", "c", type_="refusing")
    for type_ in ("denying", "unreachable"):
        write(database, "a", "b", "c", "d", "e", type_=type_)
    port = free_port()
    env = {"DATABASE_URL": database.url, "OUTBOX_HEALTH_PORT": str(port), "OUTBOX_LOG_LEVEL": "debug", **HIDDEN}
    async with Receiver(repeat_what_came) as receiver:
        (tmp_path / "outbox.toml").write_text(CONFIGURATION.format(port=receiver.port, unused=free_port()))
        process = spawn("outbox", "relay", env=env)
        down = "SELECT count(*) FROM outbox_destination WHERE state <> 'healthy'"
        dead = "SELECT count(*) FROM outbox_delivery WHERE state = 'dead'"
        await eventually_async(lambda: database.scalar(down) == 2 and database.scalar(dead) == 3, deadline_s=30)
        pages = [await asyncio.to_thread(_page, port, path) for path in ("healthz", "readyz", "metrics")]
        process.terminate()
        await eventually_async(lambda: not process.is_running, deadline_s=30)
    commands = (["config", "show"], ["config", "check"], ["status"], ["status", "--json"], ["messages", "list"])
    said = [await asyncio.to_thread(_run, command, {**os.environ, **env}) for command in commands]
    assert "***" in everything_in(database), "the receiver repeated a secret, and it was not kept at all"
    for text in (process.stdout, process.stderr, everything_in(database), *pages, *said):
        assert text is process.stdout or text
        for name, value in HIDDEN.items():
            assert value not in text, f"{name} shows"
    assert any(request.all("x-internal-secret") for request in receiver.requests)


def _page(port: int, path: str) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/{path}", trust_env=False, timeout=60, verify=False).text


def _run(command: list[str], env: Mapping[str, str]) -> str:
    script = Path(sys.executable).with_name("outbox")
    done = subprocess.run([script, *command], env=env, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
