"""SCRAM in front of a Kafka broker: a gateway that stores users, and passes nothing on before a client has logged in.

It answers two requests itself, SaslHandshake and SaslAuthenticate, in the versions with a header around the login's
bytes. The broker answers all others.

Source: https://kafka.apache.org/protocol#sasl_handshake, RFC 5802, RFC 7677
"""

import asyncio
import contextlib
import struct
from collections.abc import Mapping

import pytest

from support.tls import Front

HANDSHAKE, VERSIONS, AUTHENTICATE = 17, 18, 36
NO_ERROR, ILLEGAL_STATE, UNSUPPORTED_MECHANISM, LOGIN_FAILED = 0, 34, 33, 58


class ScramFront(Front):
    """Listens at 127.0.0.1 for a broker at the same port of 127.0.0.2, and asks each connection for a login.

    Args:
        port: The broker's.
        mechanism: The only one that it speaks.
        users: User → password.
    """

    def __init__(self, port: int, mechanism: str, users: Mapping[str, str]) -> None:
        super().__init__(port)
        self.logged_in: list[str] = []
        self.turned_away: list[int] = []  # the kinds of requests from connections that had not logged in
        self.mechanism = mechanism
        self._scram = pytest.importorskip("scramp").ScramMechanism(mechanism)
        self._users = {name: self._scram.make_auth_info(password) for name, password in users.items()}

    async def _requests(
        self, reader: asyncio.StreamReader, behind: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        login = Login(self)
        with contextlib.suppress(OSError, EOFError):
            while not login.has_failed:
                size = await reader.readexactly(4)
                frame = await reader.readexactly(struct.unpack("!i", size)[0])
                kind, version = struct.unpack_from("!hh", frame)
                if kind in (HANDSHAKE, AUTHENTICATE):
                    client.write(_answer(frame, login.answer(kind, version, _body(frame))))
                elif kind == VERSIONS or login.is_done:
                    behind.write(size + frame)
                else:
                    self.turned_away.append(kind)
                    break
        await client.drain()
        client.close()
        behind.close()


class Login:
    """The login of one connection."""

    def __init__(self, front: ScramFront) -> None:
        self.is_done = self.has_failed = False
        self._front = front
        self._user = ""
        self._server = front._scram.make_server(self._look_up)
        self._steps = iter((self._first, self._final))

    def answer(self, kind: int, version: int, body: bytes) -> bytes:
        """Return the body of the answer to a request."""
        if kind == HANDSHAKE:
            assert version == 1, "version 0 sends the login's bytes without a header"
            is_ours = body == _text(self._front.mechanism)
            return struct.pack("!hi", NO_ERROR if is_ours else UNSUPPORTED_MECHANISM, 1) + _text(self._front.mechanism)
        from scramp import ScramException

        try:
            said = next(self._steps)(body[4:].decode())
        except ScramException:
            self.has_failed = True
            return _authenticated(version, LOGIN_FAILED, f"Invalid credentials with {self._front.mechanism}", "")
        except StopIteration:
            return _authenticated(version, ILLEGAL_STATE, "The login is over", "")
        return _authenticated(version, NO_ERROR, None, said)

    def _first(self, said: str) -> str:
        self._server.set_client_first(said)
        return str(self._server.get_server_first())

    def _final(self, said: str) -> str:
        self._server.set_client_final(said)
        self._front.logged_in.append(self._user)
        self.is_done = True
        return str(self._server.get_server_final())

    def _look_up(self, user: str) -> tuple[bytes, bytes, bytes, int] | None:
        self._user = user
        return self._front._users.get(user)


def _body(frame: bytes) -> bytes:
    """Return a request without its header: kind, version, correlation id, and the client's name."""
    (length,) = struct.unpack_from("!h", frame, 8)
    return frame[10 + max(length, 0) :]


def _answer(frame: bytes, body: bytes) -> bytes:
    answer = frame[4:8] + body
    return struct.pack("!i", len(answer)) + answer


def _authenticated(version: int, code: int, error: str | None, said: str) -> bytes:
    lifetime = struct.pack("!q", 0) if version else b""
    message = struct.pack("!h", -1) if error is None else _text(error)
    return struct.pack("!h", code) + message + struct.pack("!i", len(said)) + said.encode() + lifetime


def _text(text: str) -> bytes:
    return struct.pack("!h", len(text)) + text.encode()
