"""A reader of all shards, and an event loop that keeps the pages that it is sent."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

from relay.databases.store.contract import Session
from relay.databases.store.rows import Cursors, Page
from relay.owner.reader import Reader
from relay.owner.unreadable import Unreadable
from relay.seam import OwnersSeam
from support.desk import ALL


class EventLoop:
    """The event loop as the owning thread sees it: a destination "a" with room for one page at a time."""

    def __init__(self, page_size: int, window: int, *, is_down: bool = False) -> None:
        self.free, self.window = page_size, window
        self.is_stocked = self.is_closed = False
        self.names: Sequence[str] = ("a",)
        self.down: Sequence[str] = self.names if is_down else ()
        self.with_room = {"a": page_size}
        self.pages: list[Page] = []

    def room(self, page_size: int) -> int:
        return min(self.free, page_size)

    def pages_accepted(self, epoch: int) -> int:
        return len(self.pages)

    def accept(self, page: Page, epoch: int) -> None:
        self.pages.append(page)


def reader(session: Session, loop: EventLoop, cursors: Cursors, clock: Callable[[], float]) -> Reader:
    """Return a reader that asks the event loop for room and hands the pages to it."""
    seam = cast(OwnersSeam, SimpleNamespace(view=loop, tell=loop))
    made = Reader(
        session.reading, 1, seam, cursors, unreadable=cast(Unreadable, None), page_size=loop.free, clock=clock
    )
    made.start_over(ALL)
    return made
