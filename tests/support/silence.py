"""A port in front of a server, whose connections can be made silent for ever: a network that drops every packet."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

CHUNK = 65536


class Gate:
    """Forwards connections to a server on this host.

    While it is shut, it accepts connections, and passes nothing on. A connection that it accepted before it was opened
    again stays silent, and stays open, as if its packets were dropped.

    Args:
        server_port: The server's port.

    Attributes:
        port: The port to connect to.
        silent_count: How many connections it has made silent.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.silent_count = 0
        self._silence = threading.Event()
        self._sockets: list[socket.socket] = []

    @classmethod
    @contextmanager
    def to(cls, server_port: int) -> Iterator[Self]:
        """Forward connections while the context is open."""
        gate = cls(server_port)
        threading.Thread(target=gate._accept, daemon=True).start()
        try:
            yield gate
        finally:
            for each in [gate._listener, *gate._sockets]:
                _close(each)

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Make all connections silent, and those that are opened while the context is open."""
        before = self._silence
        before.set()
        try:
            yield
        finally:
            self._silence = threading.Event()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._sockets += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, target, self._silence), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, silence: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if silence.is_set():
                    self.silent_count += 1
                    return
                target.sendall(data)
            if not silence.is_set():
                _close(target)


def _close(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
