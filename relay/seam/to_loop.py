"""Messages from the owning thread to the event loop. The rules of the memory model are in `relay.seam`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVarTuple

from outbox.errors import Unusable
from relay.decide.shared_state import SharedState
from relay.observe.supervision import Supervisor
from relay.seam.entry import Entry
from relay.seam.to_owner import Note
from relay.store.contract import Inherited
from relay.store.rows import Page

Arguments = TypeVarTuple("Arguments")


class Post(Protocol):
    """Runs a function on the event loop, later, and in the order of the calls."""

    def __call__(self, function: Callable[[*Arguments], object], /, *arguments: *Arguments) -> object: ...


def posting_to(loop: asyncio.AbstractEventLoop, supervisor: Supervisor) -> Post:
    """Return a function that runs another one on this loop later; an error in that one ends the relay."""

    def post(function: Callable[[*Arguments], object], /, *arguments: *Arguments) -> None:
        loop.call_soon_threadsafe(lambda: supervisor.call(function, *arguments))

    return post


class Delivery(Protocol):
    """The receiver of these messages. Each method runs on the loop."""

    def begin_session(self, epoch: int) -> None:
        """Note a new session; entries of an earlier one are not sent any more."""

    def accept(self, page: Page, epoch: int) -> None:
        """Take a page that this session has read."""

    def forget(self, entries: Collection[Entry]) -> None:
        """Note that these entries are settled."""

    def release(self, shards: Collection[int]) -> None:
        """Release the entries of these shards that are not under way."""

    def split(self) -> None:
        """Settle entries that have waited for a beat for the verdicts of some destinations."""

    def set_clock(self, offset_s: float) -> None:
        """Set the difference between the database's clock and the relay's, in seconds."""

    def follow(self, shared_states: Mapping[str, SharedState], asked_at: float, alone: bool) -> None:
        """Apply the shared state of the destinations, as of `asked_at`."""

    def answer_probe(self, name: str, claimed: bool, shared_state: SharedState, asked_at: float) -> None:
        """Apply the answer whether this relay probes a destination for all relays."""

    def answer_claim(self, name: str, granted: int, wait_s: float, asked_at: float) -> None:
        """Apply a share of a common rate budget."""

    def withdraw(self, deliveries: Sequence[tuple[str, str]], epoch: int) -> None:
        """Release deliveries that an operator took back; `ToOwner.withdrawn` gets the answer."""

    def take_over(self, inherited: Sequence[Inherited]) -> None:
        """Note what the last owners of these shards left; called before any page of them."""

    def leave(self, shards: Sequence[int]) -> None:
        """Note that these shards were handed back."""

    def peer_ended(self) -> None:
        """Note that another relay has ended."""

    def everything_is_read(self) -> None:
        """Note that all entries that a dead owner may have had under way were read."""

    def written(self, notes: Sequence[Note]) -> None:
        """Note that these notes are in the table."""


@dataclass(frozen=True, slots=True)
class OwnerEvents:
    """Callbacks about the life of the owning thread. Each function is called on the loop.

    Args:
        dismissed: Called with the reason when this relay must not continue; it stops the relay.
        owner_ended: Called when the owning thread has ended, with the error that ended it, if any.
    """

    dismissed: Callable[[Unusable], None]
    owner_ended: Callable[[BaseException | None], None]


class ToLoop:
    """The owning thread's messages to the event loop: each method returns at once.

    Args:
        delivery: Receives the messages.
        events: Called when the owning thread cannot continue.
        post: Runs a function on the event loop later, in the order of the calls.
    """

    def __init__(self, delivery: Delivery, events: OwnerEvents, post: Post) -> None:
        self._delivery, self._events, self._post = delivery, events, post

    def begin_session(self, epoch: int) -> None:
        self._post(self._delivery.begin_session, epoch)

    def accept(self, page: Page, epoch: int) -> None:
        self._post(self._delivery.accept, page, epoch)

    def forget(self, entries: Collection[Entry]) -> None:
        self._post(self._delivery.forget, entries)

    def release(self, shards: Collection[int], then: threading.Event | None = None) -> None:
        """Have the entries of these shards released, after all pages of them; set `then` when that is done."""
        self._post(self._delivery.release, shards)
        if then is not None:
            self._post(then.set)

    def split(self) -> None:
        self._post(self._delivery.split)

    def set_clock(self, offset_s: float) -> None:
        self._post(self._delivery.set_clock, offset_s)

    def follow(self, shared_states: Mapping[str, SharedState], asked_at: float, *, alone: bool) -> None:
        self._post(self._delivery.follow, shared_states, asked_at, alone)

    def answer_probe(self, name: str, claimed: bool, shared_state: SharedState, asked_at: float) -> None:
        self._post(self._delivery.answer_probe, name, claimed, shared_state, asked_at)

    def answer_claim(self, name: str, granted: int, wait_s: float, asked_at: float) -> None:
        self._post(self._delivery.answer_claim, name, granted, wait_s, asked_at)

    def withdraw(self, deliveries: Sequence[tuple[str, str]], epoch: int) -> None:
        self._post(self._delivery.withdraw, deliveries, epoch)

    def take_over(self, inherited: Sequence[Inherited]) -> None:
        self._post(self._delivery.take_over, inherited)

    def leave(self, shards: Sequence[int]) -> None:
        self._post(self._delivery.leave, shards)

    def peer_ended(self) -> None:
        self._post(self._delivery.peer_ended)

    def everything_is_read(self) -> None:
        self._post(self._delivery.everything_is_read)

    def written(self, notes: Sequence[Note]) -> None:
        self._post(self._delivery.written, notes)

    def dismiss(self, reason: Unusable) -> None:
        """Have this relay stopped: it must not continue."""
        self._post(self._events.dismissed, reason)

    def end(self, error: BaseException | None) -> None:
        """Report that the owning thread has ended."""
        self._post(self._events.owner_ended, error)
