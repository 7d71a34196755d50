"""Listeners for relays under test, and their records: one line for each attempt, in a file that all share.

A line is written with one `write` to a file opened for appending, before anything else: the lines of several
processes never mix, their order is the order in which the attempts began, and a line outlives its writer.

The environment says what the listeners do. RECORD_PATH is the file, RECORD_WORK_S how long an attempt takes. While
there is a file at RECORD_HOLD_PATH no attempt ends, while there is one at RECORD_FAIL_PATH they fail, and while there
is one at RECORD_REJECT_PATH they are refused.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from outbox import Message, Reject


@dataclass(frozen=True)
class Send:
    """One attempt: when it began (on the clock that all processes share), in which process, and its message."""

    at_s: float
    pid: int
    destination: str
    id: str
    key: str | None
    n: int


async def record(message: Message) -> None:
    """Take a message; hold, delay or fail it as the environment says."""
    _append("log", message)
    await asyncio.sleep(float(os.environ.get("RECORD_WORK_S", "0")))
    await _held()
    _fail("log")


async def record_too(message: Message) -> None:
    """Take a message for a second destination, which RECORD_HOLD_PATH and RECORD_FAIL_PATH do not affect."""
    _append("log-too", message)


async def ignore(_: Message) -> None:
    """Take a message at no cost, without a record."""


def apply(message: Message, session: Session) -> None:
    """Take a message with an effect in the database, made exactly once or never."""
    _append("effect", message)
    session.execute(text("INSERT INTO effect (message_id) VALUES (:id)"), {"id": message.id})


async def _held() -> None:
    while _exists("RECORD_HOLD_PATH"):  # noqa: ASYNC110 (what it waits for happens in another process)
        await asyncio.sleep(0.01)


def _fail(destination: str) -> None:
    if _exists("RECORD_FAIL_PATH"):
        raise RuntimeError(f"{destination} was told to fail")
    if _exists("RECORD_REJECT_PATH"):
        raise Reject(f"{destination} was told to reject")


def _exists(variable: str) -> bool:
    path = os.environ.get(variable)
    return bool(path) and Path(path).exists()


def _append(destination: str, message: Message) -> None:
    n = message.data["n"]
    line = f"{monotonic():.6f} {os.getpid()} {destination} {message.id} {message.ordering_key or '-'} {n}\n"
    os.write(_file(), line.encode())


@cache
def _file() -> int:
    return os.open(os.environ["RECORD_PATH"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)


class Record:
    """The recorded attempts, in order. Each line of the file is read only once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sends: list[Send] = []
        self._read_bytes = 0

    def sends(self) -> list[Send]:
        """Return every attempt so far."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                new = file.read()
            new = new[: new.rfind(b"\n") + 1]  # a line may be half written
            self._read_bytes += len(new)
            self._sends += [_send(*line.split(" ")) for line in new.decode().splitlines()]
        return self._sends.copy()


def _send(*columns: Any) -> Send:
    at_s, pid, destination, message_id, key, n = columns
    return Send(float(at_s), int(pid), destination, message_id, None if key == "-" else key, int(n))


def of(destination: str, recorded: Iterable[Send]) -> list[Send]:
    return [send for send in recorded if send.destination == destination]


def firsts_by_key(recorded: Iterable[Send]) -> dict[str, list[int]]:
    """Return key → the numbers of its messages, in the order in which they were first sent."""
    seen: set[str] = set()
    numbers: dict[str, list[int]] = defaultdict(list)
    for send in recorded:
        if send.key is not None and send.id not in seen:
            seen.add(send.id)
            numbers[send.key].append(send.n)
    return dict(numbers)
