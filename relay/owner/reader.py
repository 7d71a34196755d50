"""Decide which rows to read next, and keep the cursors."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence

from relay.databases.store.contract import Reading
from relay.databases.store.rows import DESTINATION, ORDERING_KEY, Cursors, Page, Pair, Parked, Row
from relay.decide.failures.doubt import halfway
from relay.owner.unreadable import Unreadable
from relay.seam import Entry, OwnersSeam

DUE_EVERY_S = 0.1
STOCKED_READ_EVERY_S = 0.02  # between reads while the event loop has enough to do
LITTLE = 8  # one eighth of the largest room so far, or less, counts as little
PAGES_AHEAD = 2


class Reader:
    """Reads the shards of one session, page by page, for the event loop.

    Args:
        reading: The reads of the session.
        epoch: The session's number: pages of an earlier session may still be on their way.
        seam: Tells how much room the event loop has, and sends it the pages.
        cursors: The positions up to which it has read; `relay.owner.shards` adds and removes shards.
        unreadable: Sets unreadable messages aside.
        page_size: Messages read at once.
        clock: The time, in seconds.

    Attributes:
        discarded: Deliveries that operators discarded or cancelled. `relay.owner.sweeper` takes them from the left and
            finishes them.
        exception_count: How often deliveries were set aside, or may have been.
        is_stocked: Whether the event loop has enough to do for a while: there is little room for more, or there was
            little to read and every destination has many entries. Reading a few messages costs the database as much as
            reading a page.
    """

    def __init__(
        self,
        reading: Reading,
        epoch: int,
        seam: OwnersSeam,
        cursors: Cursors,
        *,
        unreadable: Unreadable,
        page_size: int,
        clock: Callable[[], float],
    ) -> None:
        self._reading, self._epoch, self._seam, self._cursors = reading, epoch, seam, cursors
        self._view, self._clock = seam.view, clock
        self._unreadable, self._page_size = unreadable, page_size
        self._posted = 0
        self._parked: set[str] = set()
        self._may_be_none_parked = False
        self._exceptions = False
        self.exception_count = 0
        self.discarded: deque[tuple[str, str]] = deque()
        self._due_at = 0.0
        self._read_at = 0.0
        self._most_room = 0
        self._read_little = False
        self._is_larger_half = False
        self._was_next: set[str] = set()  # destinations of which the last read found the next parked deliveries
        self._reads: Counter[str] = Counter()  # reads of a destination's next parked deliveries, while some are skipped
        self._looks = 0
        self.is_stocked = False
        self._found_nothing = False

    def start_over(self, shards: Sequence[int]) -> None:
        """Read newly taken shards from their beginning."""
        for shard in shards:
            self._cursors.ready[shard] = 0
        self._cursors.exhausted.difference_update(shards)
        self._parked = set(self._view.names)
        self._may_be_none_parked = True
        self.note_exceptions([])
        self._reading.reread_due()
        self._due_at = 0.0

    def leave(self, shards: Collection[int]) -> None:
        """Stop reading shards that are being handed back."""
        for shard in shards:
            del self._cursors.ready[shard]
        self._cursors.exhausted.difference_update(shards)
        for positions in (self._cursors.parked, self._cursors.passed):
            for pair in [pair for pair in positions if pair[1] in shards]:
                del positions[pair]

    def reread(self, entry: Entry) -> None:
        """Read an entry of a lost session again, if its shard is still owned and not every destination took it.

        In the meantime another owner may have set aside one of its deliveries. This session may have read that delivery
        and dropped it, because this entry was still under way.
        """
        if entry.shard not in self._cursors.ready:
            return
        self._found_nothing = False
        if entry.destination is None:
            self._cursors.go_back(entry.shard, entry.position)
        self.note_exceptions([(lane.name, entry.shard, entry.position) for lane in entry.lanes])
        self._reading.reread_due()
        self._due_at = 0.0

    def note_exceptions(self, parked: Sequence[Parked], tried_at: Collection[str] = ()) -> None:
        """Note that deliveries were set aside: look up the keys of new messages from now on, and read what is parked.

        Args:
            parked: The deliveries that are parked now.
            tried_at: The destinations that have tried their parked deliveries. These are read again after all others:
                otherwise the relay would read the same failing deliveries of a destination that is down repeatedly, and
                never those behind them.
        """
        self._exceptions = True
        self.exception_count += 1
        self._found_nothing = False
        for destination, shard, position in parked:
            note = self._cursors.pass_by if destination in tried_at else self._cursors.lower
            note(destination, shard, position)
            self._parked.add(destination)

    def forget_exceptions(self, exception_count: int) -> None:
        """Stop looking up keys: no delivery holds one, unless more were set aside since the sweeper looked.

        Args:
            exception_count: The value of `exception_count` before the sweeper looked.
        """
        if exception_count == self.exception_count:
            self._exceptions = False

    @property
    def caught_up(self) -> bool:
        """Whether the last look found nothing, and all earlier pages have arrived."""
        return self._found_nothing and self._ahead == 0

    @property
    def has_read_everything(self) -> bool:
        """Whether all messages of all owned shards were read, and have arrived."""
        return self.caught_up and self._cursors.exhausted.issuperset(self._cursors.ready)

    def read(self, meanwhile: Callable[[], None] = lambda: None) -> int:
        """Read as much as there is room for; return the number of rows. `Reading.read_ready` explains `meanwhile`."""
        room = self._room()
        now = self._clock()
        self._most_room = min(max(self._most_room, room), self._view.window)
        is_enough = room <= self._most_room // LITTLE or (self._read_little and self._view.is_stocked)
        self.is_stocked = is_enough and bool(self._cursors.ready) and not self._view.is_closed
        if self.is_stocked and now < self._read_at:
            self._found_nothing = self._found_nothing and room > 0
            return 0
        self._read_at = now + STOCKED_READ_EVERY_S
        saw_all = self._cursors.exhausted.issuperset(self._cursors.ready)
        with_room, passing = dict(self._view.with_room), self._cursors.passing  # once: later room needs another look
        half = self._half(room)  # reserved for deliveries that come back from the table
        parked = self._read_parked(with_room, half, passing)
        page = Page(deliveries=[*parked])
        if room:
            self._read_due(page)
        limit = room - min(len(page.deliveries), half)
        found = self._reading.read_ready(self._cursors, limit, meanwhile)
        if limit and not found.messages and len(parked) >= half:  # no new message needs the other half of the room
            page.deliveries += self._read_parked(with_room, max(room - len(page.deliveries), 0), passing)
        if room:
            self._note_what_is_parked(with_room, saw_all and not page.deliveries and not found.messages)
        self._read_little = len(found.messages) <= self._most_room // LITTLE
        self.discarded += found.discarded
        if found.unparked:
            self._parked |= found.unparked
            self.note_exceptions([])
        page.messages += found.messages
        count = len(page.messages) + len(page.deliveries)
        if self._reading.unreadable:
            self.note_exceptions(self._unreadable.take_out(page))
        can_look = room > 0 or not self._cursors.ready or self._view.is_closed
        is_unread = room > 0 and (found.full or bool(self._parked & self._view.with_room.keys()))
        self._found_nothing = can_look and not count and not found and not is_unread
        if page:
            page.held = self._held_keys(page.messages)
            page.blocked = self._blocked_keys(page.deliveries, passing)
            self._posted += 1
            self._seam.tell.accept(page, self._epoch)
        return count + len(found.discarded) + len(found.unparked) or is_unread

    def _note_what_is_parked(self, with_room: Collection[str], found_nothing: bool) -> None:
        """Note that nothing is parked, if nothing was found. Look once in all newly taken shards."""
        if found_nothing:
            self._note_none_parked(with_room)
        elif self._may_be_none_parked:
            self._may_be_none_parked = False
            if not self._reading.read_parked(self._cursors.everywhere(), sorted(self._parked), 1):
                self._note_none_parked(list(self._parked))

    def _note_none_parked(self, destinations: Collection[str]) -> None:
        """Note that all ready messages were read, and that none of these destinations' deliveries is parked."""
        for name in destinations:
            self._parked.discard(name)
            del self._reads[name]

    @property
    def _ahead(self) -> int:
        """Pages that have not arrived yet."""
        return self._posted - self._view.pages_accepted(self._epoch)

    def _room(self) -> int:
        ahead = self._ahead
        if not self._cursors.ready or ahead >= PAGES_AHEAD:
            return 0
        return max(self._view.room((ahead + 1) * self._page_size) - ahead * self._page_size, 0)

    def _half(self, room: int) -> int:
        """Return half of the room; of an odd room the larger half every second time.

        Thus new messages do not wait until no more deliveries come back from the table. Deliveries may come back for
        ever: at a destination where every message, or every message of one type, fails, they are set aside repeatedly.
        """
        self._is_larger_half = not self._is_larger_half
        return (room + self._is_larger_half) // 2

    def _read_parked(self, with_room: dict[str, int], room: int, passing: set[str]) -> list[Row]:
        """Read as many parked deliveries of each destination as it has room for: more would be parked again.

        Destinations that have room for everything share one statement.
        """
        names = sorted(self._parked & with_room.keys()) if room else []
        alone = {name for name in names if with_room[name] < room}.union(passing, self._view.down)
        shared = [name for name in names if name not in alone]
        rows = self._reading.read_parked(self._cursors, shared, room) if shared else []
        for name in filter(alone.__contains__, names):
            limit = min(with_room[name], room)
            rows += self._read_parked_of(name, limit, passing) if limit else []
        for row in rows:
            with_room[row[DESTINATION]] -= 1
        return rows

    def _read_parked_of(self, name: str, limit: int, passing: set[str]) -> list[Row]:
        """Read the next parked deliveries of a destination. If it is down, every second read starts further on."""
        if name in self._was_next and name in self._view.down and (found := self._read_further_on(name, limit)):
            self._was_next.remove(name)
            passing.add(name)
            return found
        found = self._reading.read_parked(self._cursors, [name], limit)
        if name in passing and self._is_time_to_turn_back(name, found):
            self._cursors.turn_back(name)
            found = found or self._reading.read_parked(self._cursors, [name], limit)
        if found:
            self._was_next.add(name)
        return found

    def _is_time_to_turn_back(self, name: str, found: list[Row]) -> bool:
        """Return whether to go back to the skipped deliveries: at the end, or after 1, 2, 4, 8, ... reads.

        If new deliveries are parked faster than they are read, the end is never reached.
        """
        self._reads[name] = count = self._reads[name] + 1 if found else 0
        return count & (count - 1) == 0

    def _read_further_on(self, name: str, limit: int) -> list[Row]:
        """Read parked deliveries from the middle: the destination may refuse many before those that it would take."""
        self._looks += 1
        share, found = halfway(self._looks), list[Row]()
        while not found and (place := self._cursors.place(name, share)) > self._cursors.place(name, 0):
            found = self._reading.read_parked(self._cursors.at(name, place), [name], limit)
            if not found:
                self._cursors.ends[name] = place
                share /= 2
        return found

    def _read_due(self, page: Page) -> None:
        now = self._clock()
        if now < self._due_at:
            return
        due = self._reading.read_due(list(self._cursors.ready), self._page_size)
        page.messages += due.messages
        page.deliveries += due.deliveries
        if not due.full:
            self._due_at = now + DUE_EVERY_S

    def _blocked_keys(self, rows: Sequence[Row], passing: Collection[str]) -> Mapping[Pair, int]:
        """Return the deliveries behind which these parked or due deliveries must wait.

        For the destinations in `passing`, these include parked deliveries, because they are not read in order of
        position.
        """
        pairs = {(row[DESTINATION], row[ORDERING_KEY]) for row in rows if row[ORDERING_KEY] is not None}
        found = self._reading.blocked_keys(pairs) if pairs else {}
        for name in passing:
            keys = [key for destination, key in pairs if destination == name]
            found |= self._reading.held_keys(keys, [name]) if keys else {}
        return found

    def _held_keys(self, rows: Sequence[Row]) -> Mapping[Pair, int]:
        """Return the keys that must wait behind a message in the table. Query only while deliveries are set aside."""
        keys = {row[ORDERING_KEY] for row in rows if row[ORDERING_KEY] is not None} if self._exceptions else set()
        if not keys:
            return {}
        return self._reading.held_keys(list(keys), list(self._view.names))
