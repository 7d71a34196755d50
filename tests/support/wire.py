"""A proxy to PostgreSQL that can cut or hold a connection at any point of the conversation.

It listens on a separate port, between a relay and the real server. It knows only the framing of the protocol, and acts
only on *owning* connections, which say in their start-up packet that they are a relay's.

Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import make_url

from support.databases import Database

_START_UP = 196608  # protocol version 3.0
_PARSE, _BIND, _QUERY, _SYNC = b"P", b"B", b"Q", b"S"


def url_through(wire: "Wire", database: Database) -> str:
    """Return the database's URL through the wire."""
    return make_url(database.url).set(port=wire.port).render_as_string(hide_password=False)


class Wire:
    """Forwards connections to a server on this host; a changed `server_port` selects another server.

    Args:
        port: The server's.
        before: Called before each round trip of an owning connection with the numbers of the connection and of the
            round trip in it, both from 1.
    """

    def __init__(self, port: int, before: Callable[[int, int], None] | None = None) -> None:
        self.server_port = port
        self._before = before
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.owning_count = 0
        self.is_holding = threading.Event()
        self._holds_middle = threading.Event()
        self._holds_questions = threading.Event()
        self._holds_answers = threading.Event()
        self._hold_answer_to: bytes | None = None
        self._answer_is_due = threading.Event()
        self._released = threading.Event()
        self._sockets: list[socket.socket] = []
        self._start(self._accept)

    def hold_in_the_middle(self) -> None:
        """Pass on the beginning of the next message that ends a request, then nothing until `release`.

        The first message of a request would not do: while a server waits for the rest of that, it still counts as idle.
        """
        self._holds_middle.set()

    def hold_the_answer_to(self, text: str) -> None:
        """Hold the server's answer to the next statement that contains `text`, until `pass_on_the_answer`.

        The end of the connection is held until `release`, as in a network that is partitioned.
        """
        self._hold_answer_to = text.encode()

    def pass_on_the_answer(self) -> None:
        """Pass on the answer that was held, and no later request until `release`."""
        self.is_holding.clear()
        self.hold_questions()
        self._answer_is_due.set()

    def hold_questions(self) -> None:
        """Hold all further requests of owning connections, until `release`."""
        self._holds_questions.set()

    def release(self) -> None:
        """Pass everything on to the remaining side."""
        self._released.set()

    def close(self) -> None:
        self._answer_is_due.set()
        self.release()
        for each in [self._listener, *self._sockets]:
            _close(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                try:
                    server = socket.create_connection(("127.0.0.1", self.server_port))
                except ConnectionError:
                    _close(client)
                    continue
                self._sockets.append(server)
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._start(self._pass_on_questions, client, server)
                self._start(self._pass_on_answers, server, client)

    def _pass_on_questions(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError, EOFError):
            number = self._pass_on_start_up(client, server)
            if number:
                self._pass_on_owner(number, client, server)
            while data := client.recv(65536):
                server.sendall(data)
        _close(server)

    def _pass_on_start_up(self, client: socket.socket, server: socket.socket) -> int:
        """Forward requests for encryption and the start-up packet; return the owning connection's number, or 0."""
        while True:
            length = _exactly(client, 4)
            packet = _exactly(client, struct.unpack("!I", length)[0] - 4)
            server.sendall(length + packet)
            if struct.unpack("!I", packet[:4])[0] == _START_UP:
                if b"outbox relay" not in packet:
                    return 0
                self.owning_count += 1
                return self.owning_count

    def _pass_on_owner(self, number: int, client: socket.socket, server: socket.socket) -> None:
        statements: dict[bytes, bytes] = {}
        statement, round_trips = b"", 0
        while True:
            kind, length = _exactly(client, 1), _exactly(client, 4)
            body = _exactly(client, struct.unpack("!I", length)[0] - 4)
            if self._holds_questions.is_set():
                self._hold()
            if kind == _PARSE:
                name, text, _ = body.split(b"\0", 2)
                statements[name] = text
            elif kind == _BIND:
                statement = statements[body.split(b"\0", 2)[1]]
            elif kind in (_QUERY, _SYNC):
                round_trips += 1
                self._before_round_trip(number, round_trips, statement)
                if self._holds_middle.is_set():
                    self._holds_middle.clear()
                    server.sendall(kind)
                    self._hold()
                    kind = b""
            server.sendall(kind + length + body)

    def _before_round_trip(self, number: int, round_trip: int, statement: bytes) -> None:
        if self._before is not None:
            self._before(number, round_trip)
        if self._hold_answer_to is not None and self._hold_answer_to in statement:
            self._hold_answer_to = None
            self._holds_answers.set()

    def _hold(self) -> None:
        self.is_holding.set()
        self._released.wait()

    def _pass_on_answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self._holds_answers.is_set():
                    self._holds_answers.clear()
                    self.is_holding.set()
                    self._answer_is_due.wait()
                    client.sendall(data)
                    self._released.wait()
                    break
                client.sendall(data)
        _close(client)

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=function, args=arguments, daemon=True).start()


def _exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _close(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
