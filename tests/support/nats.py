"""A private NATS server with JetStream for the test run."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest

from support.servers import Server, program

USER, PASSWORD = "relay", "password-of-nats"
STREAM = "EXTRACTION"
Result = TypeVar("Result")

CONFIG = """
host: 127.0.0.1
port: {port}
max_payload: 300KB
jetstream {{ store_dir: "{directory}" }}
authorization {{
  users: [
    {{ user: {user}, password: "{password}" }}
    {{ user: limited, password: "{password}", permissions: {{ publish: {{ deny: ["report.wanted"] }} }} }}
  ]
}}
"""


class NatsServer(Server):
    """One NATS server, which has one stream for the events of an extraction."""

    tls: ssl.SSLContext | None = None

    def __init__(self) -> None:
        pytest.importorskip("nats")
        super().__init__("nats")
        self._program = program("nats-server", "nats-server")

    def command(self) -> Sequence[str]:
        path = self.directory / "nats.conf"
        path.write_text(CONFIG.format(port=self.port, directory=self.directory, user=USER, password=PASSWORD))
        return [self._program, "--config", str(path)]

    @property
    def url(self) -> str:
        return f"nats://{USER}:{PASSWORD}@127.0.0.1:{self.port}"

    def answers(self) -> bool:
        super().answers()
        self.use(lambda js: js.account_info())
        return True

    def use(self, work: Callable[[Any], Awaitable[Result]]) -> Result:
        """Run an action with JetStream, from a test that is not async."""
        return asyncio.run(self.on_jetstream(work))

    async def on_jetstream(self, work: Callable[[Any], Awaitable[Result]]) -> Result:
        """Run an action with JetStream."""
        import nats

        client = await nats.connect(self.url, allow_reconnect=False, connect_timeout=30, tls=self.tls)
        try:
            return await work(client.jetstream(timeout=30))
        finally:
            await client.close()

    def recover(self) -> None:
        super().recover()
        self.use(_renewed)

    def messages(self, stream: str = STREAM) -> list[Any]:
        """Return the messages of a stream, in its order: each with `subject`, `headers` and `data`."""
        return self.use(lambda js: _all(js, stream))


async def _renewed(js: Any) -> None:
    for stream in await js.streams_info():
        await js.delete_stream(stream.config.name)
    await js.add_stream(name=STREAM, subjects=["extraction.>"])


async def _all(js: Any, stream: str) -> list[Any]:
    state = (await js.stream_info(stream)).state
    numbers = range(state.first_seq, state.last_seq + 1) if state.messages else ()
    return [await js.get_msg(stream, number) for number in numbers]
