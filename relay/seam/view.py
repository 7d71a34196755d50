"""The owning thread's view of the event loop, and the owning thread's end of the seam."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.seam.lease import Lease
from relay.seam.to_loop import Crashes, Delivery, OwnerEvents
from relay.seam.to_owner import ToOwner


class DeliveryView(Protocol):
    """Snapshots of the event loop's state: each may be old when it is used (rule 4 of the memory model)."""

    @property
    def names(self) -> Sequence[str]:
        """The destinations. They never change."""

    @property
    def with_room(self) -> Mapping[str, int]:
        """The destinations that have room for more entries, and for how many."""

    @property
    def down(self) -> Collection[str]:
        """The destinations that take no messages now, and leave the room to others."""

    @property
    def is_stocked(self) -> bool:
        """Whether every destination that takes messages has enough entries to send for a while."""

    @property
    def is_closed(self) -> bool:
        """Whether no destination takes messages now."""

    @property
    def is_empty(self) -> bool:
        """Whether no entry is unsettled."""

    @property
    def is_watching_for_crashes(self) -> bool:
        """Whether `Crashes.rest` would change anything."""

    @property
    def window(self) -> int:
        """The most unsettled entries now."""

    def room(self, page_size: int) -> int:
        """Return how many messages to read next."""

    def pages_accepted(self, epoch: int) -> int:
        """Return how many pages of this session have arrived."""

    def count_in(self, shards: Collection[int]) -> int:
        """Return how many entries of these shards are unsettled."""

    def under_way(self) -> list[tuple[str, str]]:
        """Return the attempts under way: (destination, message) pairs."""


@dataclass(frozen=True, slots=True)
class OwnersSeam:
    """The owning thread's end of the seam.

    Args:
        tell: Sends messages about entries and destinations to the event loop.
        crashes: Sends messages about relays that ended to the event loop.
        events: Sends messages about the life of the owning thread.
        heard: The messages from the event loop.
        view: The snapshots of the event loop.
        lease: Knows whether the relay may send.
    """

    tell: Delivery
    crashes: Crashes
    events: OwnerEvents
    heard: ToOwner
    view: DeliveryView
    lease: Lease
