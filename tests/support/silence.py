"""A port in front of a server, whose connections can be made silent for ever: a network that drops every packet."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

CHUNK = 65536


class Gate:
    """Forwards connections to a server on this host.

    While it is shut, it accepts connections, and passes nothing on, or only their first answers. A connection that it
    accepted before it was opened again stays silent, and stays open, as if its packets were dropped.

    Args:
        server_port: The server's port.

    Attributes:
        port: The port to connect to.
        silent_count: How often it has passed nothing on.
        open_count: How many connections the clients have not closed.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.silent_count = self.open_count = 0
        self._answers = 0
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
    def shut(self, *, answers: int = 0) -> Iterator[None]:
        """Make all connections silent, and those that are opened while the context is open, after so many answers."""
        before, self._answers = self._silence, answers
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
                self.open_count += 1
                for work, *ends in ((self._pass_requests, client, server), (self._pass_answers, server, client)):
                    threading.Thread(target=work, args=(*ends, self._silence), daemon=True).start()

    def _pass_requests(self, client: socket.socket, server: socket.socket, silence: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(CHUNK):
                if not silence.is_set() or self._answers:
                    server.sendall(data)
                else:
                    self.silent_count += 1
            self.open_count -= 1
            if not silence.is_set():
                _close(server)

    def _pass_answers(self, server: socket.socket, client: socket.socket, silence: threading.Event) -> None:
        answers = 0
        with suppress(OSError):
            while data := server.recv(CHUNK):
                if silence.is_set() and answers >= self._answers:
                    self.silent_count += 1
                    return
                client.sendall(data)
                answers += 1
            if not silence.is_set():
                _close(client)


def _close(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
