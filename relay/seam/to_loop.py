"""Messages from the owning thread to the event loop. The rules of the memory model are in `relay.seam`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from outbox.errors import Unusable
from relay.databases.store.inheriting import Inherited
from relay.databases.store.rows import Page
from relay.decide.shared_state import SharedState
from relay.seam.entry import Entry
from relay.seam.supervision import Supervisor
from relay.seam.to_owner import Note

Post = Callable[..., object]  # runs a function with arguments on the event loop later, in the order of the calls
Receiver = TypeVar("Receiver")


def posting_to(loop: asyncio.AbstractEventLoop, supervisor: Supervisor) -> Post:
    """Return a function that runs other functions on this loop later; an error in one of them ends the relay."""

    def post(function: Callable[..., object], *arguments: Any) -> None:
        loop.call_soon_threadsafe(lambda: supervisor.call(function, *arguments))

    return post


class Delivery(Protocol):
    """The receiver of messages about entries and destinations. Each method runs on the loop."""

    def begin_session(self, epoch: int) -> None:
        """Note a new session; entries of an earlier one are not sent any more."""

    def accept(self, page: Page, epoch: int) -> None:
        """Take a page that this session has read."""

    def forget(self, entries: Collection[Entry]) -> None:
        """Note that these entries are settled."""

    def release(self, shards: Collection[int], then: Callable[[], object] = lambda: None) -> None:
        """Release the entries of these shards that are not under way; then call a function."""

    def split(self) -> None:
        """Settle entries that have waited for a beat for the verdicts of some destinations."""

    def follow(self, shared_states: Mapping[str, SharedState], asked_at: float, alone: bool) -> None:
        """Apply the shared state of the destinations, as of `asked_at`."""

    def answer_probe(self, name: str, claimed: bool, shared_state: SharedState, asked_at: float) -> None:
        """Apply the answer to a probe request: whether this relay probes the destination for all relays."""

    def answer_claim(self, name: str, granted: int, wait_s: float, asked_at: float) -> None:
        """Apply a share of a common rate budget."""

    def withdraw(self, deliveries: Collection[tuple[str, str]], epoch: int) -> None:
        """Release deliveries that an operator took back; `ToOwner.withdrawn` gets the answer."""


class Crashes(Protocol):
    """The receiver of messages about relays that ended. Each method runs on the loop."""

    def take_over(self, inherited: Sequence[Inherited]) -> None:
        """Note what the last owners of these shards left; called before any page of them."""

    def leave(self, shards: Sequence[int]) -> None:
        """Note that these shards were handed back."""

    def disturb(self) -> None:
        """Note that another relay has ended."""

    def rest(self) -> None:
        """Note that all entries that a dead owner may have had under way were read."""

    def written(self, notes: Sequence[Note]) -> None:
        """Note that these notes are in the table."""


@dataclass(frozen=True, slots=True)
class OwnerEvents:
    """The receiver of messages about the life of the owning thread. Each function is called on the loop.

    Args:
        dismissed: Called with the reason when this relay must not continue; it stops the relay.
        owner_ended: Called when the owning thread has ended, with the error that ended it, if any.
    """

    dismissed: Callable[[Unusable], None]
    owner_ended: Callable[[BaseException | None], None]


class _Posting:
    """Has the methods of a receiver; each returns at once, and the receiver's own method runs on the loop later."""

    def __init__(self, receiver: object, post: Post) -> None:
        self._receiver, self._post = receiver, post

    def __getattr__(self, name: str) -> Callable[..., object]:
        return partial(self._post, getattr(self._receiver, name))


def posted(receiver: Receiver, post: Post) -> Receiver:
    """Return the sending end for a receiver on the loop: each call of its methods posts a message.

    Args:
        receiver: A `Delivery`, `Crashes` or `OwnerEvents`, to be called with positional arguments.
        post: Runs a function on the event loop later, in the order of the calls.
    """
    return cast("Receiver", _Posting(receiver, post))
