"""The way of one plain message: the functions that it passes from `emit` to the history, on both threads of a relay.

    python -m tests.support.way

A function is on the way if the message is among its arguments, its local values or its result. The message goes to a
listener in the relay's process, and the database is an SQLite file: no other way is shorter.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from outbox import Message, emit
from relay import ListenerSettings, Relay, Settings
from relay.databases.migrations import upgrade
from relay.seam import Entry

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(str(ROOT / package) + "/" for package in ("outbox", "relay"))
ID = "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"


class Way:
    """The functions of the product that had the message, in the order of the first time.

    Attributes:
        functions: Each as its file and its name.
    """

    def __init__(self) -> None:
        self.functions: dict[tuple[str, str], None] = {}

    def note(self, frame: FrameType, event: str, result: Any) -> None:
        """Note a function that returns, if it had the message; a profile function of `sys.setprofile`."""
        code = frame.f_code
        if event != "return" or not code.co_filename.startswith(PACKAGES):
            return
        of_function = [value for name, value in frame.f_locals.items() if name not in ("self", "cls")]
        if _is_in([*of_function, result]):
            self.functions[str(Path(code.co_filename).relative_to(ROOT)), code.co_qualname] = None

    @property
    def rooms(self) -> list[str]:
        """The folders of these functions."""
        return list(dict.fromkeys(str(Path(file).parent) for file, _ in self.functions))


def _is_in(value: object, depth: int = 4) -> bool:
    if isinstance(value, Entry | Message):
        return value.id == ID
    if isinstance(value, list | tuple | set | frozenset | deque | dict) and depth:
        values = [*value, *value.values()] if isinstance(value, dict) else list(value)
        return any(_is_in(each, depth - 1) for each in values)
    return isinstance(value, str) and value == ID


async def way_of_a_message(url: str) -> Way:
    """Deliver a message; return its way."""
    way, is_taken = Way(), asyncio.Event()

    async def listen(message: Message) -> None:
        is_taken.set()

    settings = Settings(database_url=url, destinations={"here": ListenerSettings(listener=listen)})
    threading.setprofile(way.note)
    try:
        async with Relay(settings) as relay:
            await relay.drain()
            sys.setprofile(way.note)
            with Session(sa.create_engine(url)) as session, session.begin():
                emit(session, "page.read", {"page": 1}, id=ID)
            await is_taken.wait()
            await relay.drain(look=False)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return way


def measure() -> Way:
    """Deliver a message through a database of its own; return its way."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/outbox.db"
        upgrade(url, only="outbox")
        return asyncio.run(way_of_a_message(url))


def main() -> None:
    """Print the functions in their order, and their number."""
    way = measure()
    for file, name in way.functions:
        print(f"{file}: {name}")
    modules = {file for file, _ in way.functions}
    print(f"{len(way.functions)} functions in {len(modules)} modules and {len(way.rooms)} rooms")


if __name__ == "__main__":
    main()
