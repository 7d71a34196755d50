"""The entries of one destination in memory: their order, their room, and which to set aside.

An entry is in exactly one place until it is decided. (This module does no input or output and has no clock.)

| place     | what it is                                          | it leaves when …                           |
|-----------|-----------------------------------------------------|--------------------------------------------|
| fresh     | may be sent, and was not tried yet                  | it is sent                                 |
| again     | may be sent, and failed before                      | it is sent                                 |
| under way | is being attempted                                  | its attempt ends                           |
| suspect   | failed; the breaker keeps it                        | the breaker rules on it                    |
| chained   | waits behind the head of its ordering key, which is | the head is done, or is set aside and this |
|           | in one of the other places                          | with it                                    |

With an ordering key, one entry is the **head** and its successors are chained. If the head cannot be delivered now, the
whole chain goes back to the table (**blocked**), head first: the table never has a successor without its predecessor.

An entry that failed once, and those chained behind it, are **set back**: they have a separate, bounded room. A due
retry goes there, too; if there is no room, it waits for its backoff once more and is not charged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter

from relay.decide.verdict import BEHIND, BLOCKED, DELIVERED, EXPIRED, HANDED_OVER, PARKED, TRIED, State, Verdict
from relay.delivery.chains import Chain, Chains, HeldKeys, SetBack
from relay.delivery.startable import Startable
from relay.seam import Entry

RESERVE = 8  # the most entries for probes that a destination keeps in memory while it is down


class DeliveryQueue:
    """The entries of one destination.

    Args:
        name: The destination.
        suspects: The entries that the breaker holds.
        limit: The most entries in memory, without those that are set back.
        on_dead: The effect of a dead letter on its key's successors: ``"block"`` or ``"skip"``.
        on_complete: Called with an entry when it has its last verdict.

    Attributes:
        size: Entries without a verdict.
        startable: The entries that may be sent as far as their order permits.
        chains: The entries of each ordering key, under way or waiting.
        set_back: The entries that failed once or are chained behind one that did.
    """

    def __init__(
        self,
        name: str,
        suspects: Collection[Entry],
        *,
        limit: int,
        on_dead: str,
        on_complete: Callable[[Entry], None],
    ) -> None:
        self.name, self.suspects, self.on_dead, self._on_complete = name, suspects, on_dead, on_complete
        self.size = 0
        self.startable = Startable()
        self.under_way: dict[Entry, Entry] = {}  # the entry that a worker has → that entry, or the one that replaced it
        self.chains = Chains()
        self._held = HeldKeys()
        self.set_back = SetBack(self.chains, limit)
        self.resize(limit)

    def resize(self, limit: int) -> None:
        """Set the most entries in memory; those that are in memory stay."""
        self.limit, self._longest = limit, limit * 3 // 4  # entries, and successors of one key among them
        self.set_back.limit = max(limit // 2, RESERVE)

    # ------------------------------------------------------------- coming in

    @property
    def reserve(self) -> int:
        """How many untried entries, and how many failed ones, a destination that is down keeps: both fit in `limit`."""
        return max(min(RESERVE, self.limit // 2), 1)

    def room(self, limit: int) -> int:
        """How many more entries there is room for, if this number may be held."""
        return max(limit - (self.size - self.set_back.count), 0)

    def is_held(self, entry: Entry, before: int | None) -> bool:
        """Return whether an earlier entry of its key is set aside, in the table (`before`) or on its way there."""
        if entry.key is None:
            return False
        return (before is not None and before < entry.position) or self._held.is_before(entry.key, entry.position)

    def accept_all(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Take new entries, for which there is room; return those that may have to wait behind one in the table."""
        if (self._held or self.set_back.count) and any(entry.key is not None for entry in entries):
            return entries
        heads, rest = self.chains.join_all(entries, self._longest)
        self.size += len(entries) - len(rest)
        self.startable.fresh.extend(heads)
        return rest

    def accept(self, entry: Entry, *, before: int | None, has_room: bool) -> None:
        """Take a new entry, or set it aside.

        Args:
            entry: The new entry.
            before: The lowest position of an unfinished message of its key in the table, if there is one.
            has_room: Whether it may be held in memory.
        """
        chain = self.chains.of(entry.key)
        if self.is_held(entry, before) or (chain is not None and self._is_too_long(chain)):
            if chain is not None:
                chain.tail.is_plain = False  # settling it releases deliveries that wait behind it in the table
            self.set_aside(entry, BLOCKED if chain is None else BEHIND)
        elif has_room:
            self._take_in(entry)
        else:
            self.set_aside(entry, PARKED)

    def accept_back(self, entry: Entry, *, before: int | None, has_room: bool, put_off: Verdict | None = None) -> None:
        """Take an entry that was read back from the table, or set it aside again; see `accept`.

        A charged entry is set back. If there is no room for it, it gets the verdict `put_off`.
        """
        if self.is_held(entry, before):
            self.set_aside(entry, BLOCKED)
        elif put_off is not None and not self.set_back.is_full:
            self.set_back.add(entry)
            self._take_in(entry)
        elif put_off is not None or not has_room:
            self.set_aside(entry, put_off or PARKED)
        else:
            self._take_in(entry)

    def _take_in(self, entry: Entry) -> None:
        """Add an entry at the end of the chain of its key."""
        self.size += 1
        head = self.chains.join(entry)
        if head is None:
            self.startable.add(entry)
        elif head in self.set_back:
            self.set_back.add(entry)

    def set_aside(self, entry: Entry, verdict: Verdict) -> None:
        """Note that an entry is set aside that is not in memory here: its successors must queue behind it."""
        if entry.key is not None and not self._frees(verdict):
            self._held.add(entry.key, entry.position)
        if entry.decide(self.name, verdict):
            self._on_complete(entry)

    def forget(self, entry: Entry) -> None:
        """Note that an entry is settled: if it was set aside, the table shows it now."""
        verdict = entry.verdict_of(self.name)
        if entry.key is not None and not self._frees(verdict) and verdict is not HANDED_OVER:
            self._held.remove(entry.key, entry.position)

    def _is_too_long(self, chain: Chain) -> bool:
        return len(chain.successors) >= self._longest or (self.set_back.is_full and chain.head in self.set_back)

    # -------------------------------------------------------------- going out

    def pick(self, at: float | None = None, unlike: Collection[str] = ()) -> Entry | None:
        """Take the next entry to be sent; it is under way from here on. See `Startable.take`."""
        if (entry := self.startable.take(at, unlike)) is not None:
            self._put_under_way(entry)
        return entry

    def pick_more(self, may_follow: Callable[[Entry], bool], count: int) -> list[Entry]:
        """Take more entries as long as they may go in the same batch; they are under way from here on."""
        found: list[Entry] = []
        while len(found) < count and (entry := self.startable.take_if(may_follow)) is not None:
            self._put_under_way(entry)
            found.append(entry)
        return found

    def put_back(self, entry: Entry) -> Entry:
        """Put an entry back to the front, because it was not sent or was sent only as a part of a batch; return it."""
        entry = self.end_attempt(entry)
        self.startable.end_turn(entry)
        self.startable.fresh.appendleft(entry)
        return entry

    def end_attempt(self, entry: Entry) -> Entry:
        """Note that an attempt has ended; return the entry to rule on: this one, or the one that replaced it."""
        return self.under_way.pop(entry)

    def suspect(self, entry: Entry) -> None:
        """Keep an entry as a suspect until the breaker has ruled on it."""
        self.startable.end_turn(entry, taken=False)
        self._set_all_back(entry)

    def retry(self, entry: Entry) -> None:
        """Put an entry that the breaker released to the back, behind untried entries."""
        self.startable.end_turn(entry)
        self._set_all_back(entry)
        self.startable.again.append(entry)

    def decide(self, entry: Entry, verdict: Verdict) -> None:
        """Note the verdict on an entry that has left the queue, and release the next entry of its key."""
        if self.startable.turns:
            self.startable.end_turn(entry, taken=verdict is DELIVERED)
        if self.set_back.count:
            self.set_back.remove(entry)
        self.size -= 1
        if entry.decide(self.name, verdict):
            self._on_complete(entry)
        if entry.key is not None:
            self._advance(entry.key, entry, verdict)

    def _put_under_way(self, entry: Entry) -> None:
        self.under_way[entry] = entry
        if self.set_back.count:
            self.set_back.remove_group(entry)

    # ------------------------------------------------------------------ keys

    def _frees(self, verdict: Verdict) -> bool:
        """Return whether the next entry of the key may be sent."""
        return verdict is DELIVERED or verdict is EXPIRED or (verdict.state == State.DEAD and self.on_dead == "skip")

    def _advance(self, key: str, head: Entry, verdict: Verdict) -> None:
        """Release the next entry of the key, or put all entries of the key back into the table."""
        if verdict is not DELIVERED and not self._frees(verdict):
            self._held.add(key, head.position)
            self._send_back(self.chains.end(key), BLOCKED)
        elif (following := self.chains.advance(key)) is not None:
            if self.set_back.count:
                self.set_back.remove_group(following)
            self.startable.add(following)

    def _send_back(self, successors: Iterable[Entry], verdict: Verdict) -> None:
        for successor in successors:
            self.set_back.remove(successor)
            self.size -= 1
            self.set_aside(successor, verdict)

    # -------------------------------------------------------------- set back

    def _set_all_back(self, head: Entry) -> None:
        """Set a head and its chain back; beyond the limit, the chain goes back to the table."""
        self.set_back.add_group(head)
        if self.set_back.count > self.set_back.limit and (successors := self.chains.cut(head)):
            head.is_plain = False
            self._send_back(successors, BEHIND)

    # ------------------------------------------------------------- letting go

    def waiting(self) -> Iterator[Entry]:
        """The entries that are not under way."""
        yield from self.startable
        yield from self.suspects
        yield from self.chains.successors()

    def evict(self, belongs: Callable[[Entry], bool]) -> list[Entry]:
        """Release the entries that `belongs` selects and are not under way; return them, without a verdict.

        The caller has the breaker forget those that are suspects.
        """
        gone = {e for e in self.waiting() if belongs(e)}
        if not gone:
            return []
        self.startable.remove(gone)
        self.set_back.remove(*gone)
        for head in self.chains.remove(gone):
            self.startable.add(head)
        self.size -= len(gone)
        return sorted(gone, key=attrgetter("position"))

    def park(self, belongs: Callable[[Entry], bool], verdict: Verdict = PARKED) -> list[Entry]:
        """Put the entries that `belongs` selects, and those behind them, back into the table; return them."""
        keys = {e.key for e in self.waiting() if e.key is not None and belongs(e)}
        gone = self.evict(lambda e: e.key in keys or belongs(e))
        for entry in gone:
            self.set_aside(entry, verdict)
        return gone

    def park_down_to_reserve(self) -> list[Entry]:
        """Keep a few entries of any age to probe with; put the rest back into the table, and return the rest."""
        keep = {*self.startable.sample(self.reserve), *self.under_way.values()}
        kept_keys = {e.key for e in keep if e.key is not None}
        return self.park(lambda e: e not in keep and e.key not in kept_keys)

    def overflow(self) -> list[Entry]:
        """Put entries that were set back beyond the limit back into the table, the oldest first; return them."""
        count = len(self.startable.again) - self.set_back.limit
        return self.park(set(islice(self.startable.again, count)).__contains__, TRIED) if count > 0 else []

    def hand_over(self, entry: Entry, other: Entry) -> bool:
        """Replace an entry that is under way by `other`; return false if it is not under way.

        The entry itself counts as parked, so that the verdicts of its other destinations can be settled.
        """
        given = next((given for given, now in self.under_way.items() if now is entry), None)
        if given is None:
            return False
        self.under_way[given] = other
        self.chains.replace(entry, other)
        self.startable.replace(entry, other)
        if entry.decide(self.name, HANDED_OVER):
            self._on_complete(entry)
        return True
