"""Listeners that kill or block their relay on one message, and record what was under way with it.

POISON is the number of that message in its data (`n`), or several with commas. A line is written when an attempt
begins and when it ends: the process, `+` or `-`, the message's number, and how many were under way then.
"""

import asyncio
import ctypes
import os
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from outbox import Message

_under_way = 0


async def kill(message: Message) -> None:
    """Take everything but the poison, which kills the relay at once."""
    _begin(message)
    await asyncio.sleep(0.005)
    if _is_poison(message):
        os._exit(70)
    _end(message)


async def sleep(message: Message) -> None:
    """Block the event loop on the poison, and release the interpreter to other threads."""
    _begin(message)
    if _is_poison(message):
        time.sleep(60)  # noqa: ASYNC251 (that is what it is for)
    _end(message)


async def hold_the_interpreter(message: Message) -> None:
    """Block everything on the poison, as a C extension can that does not release the interpreter."""
    _begin(message)
    if _is_poison(message):
        ctypes.PyDLL(None).sleep(60)
    _end(message)


def hang(message: Message) -> None:
    """A plain listener that never returns on the poison."""
    _begin(message)
    if _is_poison(message):
        threading.Event().wait()
    _end(message)


def _begin(message: Message) -> None:
    global _under_way
    _under_way += 1
    _append("+", message)


def _end(message: Message) -> None:
    global _under_way
    _append("-", message)
    _under_way -= 1


def _is_poison(message: Message) -> bool:
    return str(message.data["n"]) in os.environ["POISON"].split(",")


def _append(sign: str, message: Message) -> None:
    file = os.open(os.environ["RECORD_PATH"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(file, f"{os.getpid()} {sign} {message.data['n']} {_under_way}\n".encode())
    os.close(file)


@dataclass
class Life:
    """What one relay's process did."""

    begun: list[int] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    most_at_once: int = 0

    @property
    def unfinished(self) -> set[int]:
        return set(self.begun) - self.ended


def begun(path: Path) -> list[int]:
    """Return the messages whose attempts began, in that order, on all relays."""
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    return [int(n) for _, sign, n, _ in lines if sign == "+"]


def lives(path: Path) -> dict[int, Life]:
    """Return process id → what it did, in the order of their starts."""
    found: defaultdict[int, Life] = defaultdict(Life)
    for line in path.read_text().splitlines() if path.exists() else []:
        pid, sign, n, at_once = line.split(" ")
        life = found[int(pid)]
        life.most_at_once = max(life.most_at_once, int(at_once))
        if sign == "+":
            life.begun.append(int(n))
        else:
            life.ended.add(int(n))
    return dict(found)
