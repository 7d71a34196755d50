"""Servers in front of a broker: one that passes everything on, and one that terminates TLS and checks certificates."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme


class Certificates:
    """A private authority with a server's and a client's certificate, as files.

    Args:
        folder: Where the files are written.
    """

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.authority = folder / "ca.pem"
        self.server = folder / "server.pem"
        self.client = folder / "client.pem"
        authority.cert_pem.write_to_path(self.authority)
        for path, names in ((self.server, ("127.0.0.1", "localhost")), (self.client, ("relay.example",))):
            authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(path)

    def context(self, *, asks: bool) -> ssl.SSLContext:
        """Return the TLS context of a server; with `asks` its clients have to show a certificate of the authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.authority)
        context.load_cert_chain(self.server)
        context.verify_mode = ssl.CERT_REQUIRED if asks else ssl.CERT_NONE
        return context


class Front:
    """Listens at 127.0.0.1, for a broker at the same port of 127.0.0.2.

    A broker tells its clients its address: this server replaces that by its own, a text of the same length.

    Args:
        port: The broker's, and this server's.
        context: What to speak TLS with.
    """

    HOST, BEHIND = "127.0.0.1", "127.0.0.2"

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.received = bytearray()
        self._port = port
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.HOST, self._port, ssl=self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        behind_reader, behind_writer = await asyncio.open_connection(self.BEHIND, self._port)
        try:
            await asyncio.gather(self._requests(reader, behind_writer, writer), self._answers(behind_reader, writer))
        except asyncio.CancelledError:  # the test has ended: a task that ends with this error would be reported
            pass
        finally:
            behind_writer.close()
            writer.close()

    async def _requests(
        self, reader: asyncio.StreamReader, behind: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.received += data
                behind.write(data)
        behind.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data.replace(self.BEHIND.encode(), self.HOST.encode()))
        writer.close()
