"""What waits for one destination in memory: order, room, and what is set aside. No input, no output, no clock.

An entry is in exactly one place until it is decided:

| place     | what it is                                          | it leaves when …                           |
|-----------|-----------------------------------------------------|--------------------------------------------|
| fresh     | may be sent, and was not tried yet                  | it is sent                                 |
| again     | may be sent, and failed before                      | it is sent                                 |
| under way | is being attempted                                  | its attempt ends                           |
| suspect   | failed; the breaker keeps it                        | the breaker rules on it                    |
| chained   | waits behind the head of its ordering key, which is | the head is done, or is set aside and this |
|           | in one of the other places                          | with it                                    |

With an ordering key, one entry is the **head** and its successors are chained. When the head cannot be delivered now,
the whole chain goes back to the table (**blocked**), head first, so that the table never knows a successor without its
predecessor.

What failed once, and what is chained behind it, is **set back**: it takes none of the room of what was not tried yet,
and has a bounded room of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from relay.decide.verdict import BEHIND, BLOCKED, DELIVERED, EXPIRED, HANDED_OVER, PARKED, Verdict
from relay.delivery.entry import Entry
from relay.delivery.held_keys import HeldKeys

RESERVE = 8  # what a destination that takes nothing keeps in memory at most, to probe with
AGAIN_EVERY = 12  # one attempt in 12 is at what failed before, while there is something that was not tried


@dataclass(slots=True)
class Chain:
    """The entries of one ordering key.

    Args:
        head: The one that may be sent, is being sent, or is a suspect.
        successors: Those behind it, in their order.
    """

    head: Entry
    successors: deque[Entry] = field(default_factory=deque)


class DeliveryQueue:
    """The entries of one destination.

    Args:
        name: The destination.
        limit: Entries held in memory at most, without what is set back.
        on_dead: ``"block"`` or ``"skip"``: whether a dead letter holds its key's successors up.
        on_complete: Called with an entry when the last of its verdicts is in.

    Attributes:
        size: Entries without a verdict.
        set_back_count: Those of them that failed once or are chained behind one that did.
        suspects: The entries that the breaker keeps.
    """

    def __init__(self, name: str, *, limit: int, on_dead: str, on_complete: Callable[[Entry], None]) -> None:
        self.name = name
        self.limit = limit
        self.on_dead = on_dead
        self.size = 0
        self.set_back_count = 0
        self.fresh: deque[Entry] = deque()
        self.again: deque[Entry] = deque()
        self.under_way: dict[Entry, Entry] = {}  # what the worker was given → what stands for it now
        self.suspects: set[Entry] = set()
        self._chains: dict[str, Chain] = {}
        self._held = HeldKeys()
        self._set_back: set[Entry] = set()
        self._on_complete = on_complete
        self._turn = 0

    # ------------------------------------------------------------- coming in

    @property
    def startable_count(self) -> int:
        """How many entries may be sent as far as their order goes."""
        return len(self.fresh) + len(self.again)

    @property
    def reserve(self) -> int:
        """How many untried entries a destination keeps that takes nothing, and how many that failed before.

        Both together fit into its share of the window, so that all destinations but one may be down.
        """
        return max(min(RESERVE, self.limit // 2), 1)

    def room(self, limit: int) -> int:
        """How many more entries there is room for, when so many may be held."""
        return max(limit - (self.size - self.set_back_count), 0)

    def is_held(self, entry: Entry, before: int | None) -> bool:
        """Whether an earlier entry of its key is set aside, in the table (`before`) or on its way there."""
        if entry.key is None:
            return False
        return (before is not None and before < entry.position) or self._held.is_before(entry.key, entry.position)

    def accept(self, entry: Entry, *, before: int | None, has_room: bool) -> None:
        """Take a newcomer in, or set it aside.

        Args:
            entry: The newcomer.
            before: The lowest position of a message of its key in the table that is not done, if there is one.
            has_room: Whether it may be held in memory.
        """
        chain = self._chains.get(entry.key) if entry.key is not None else None
        if self.is_held(entry, before) or (chain is not None and self._is_too_long(chain)):
            if chain is not None:
                self._let_tail_release(chain)
            self.set_aside(entry, BLOCKED if chain is None else BEHIND)
        elif has_room:
            self.offer(entry)
        else:
            self.set_aside(entry, PARKED)

    def accept_back(self, entry: Entry, *, before: int | None, has_room: bool) -> None:
        """Take an entry in that was set aside, or set it aside again."""
        if self.is_held(entry, before):
            self.set_aside(entry, BLOCKED)
        elif has_room:
            self.offer(entry)
        else:
            self.set_aside(entry, PARKED)

    def offer(self, entry: Entry) -> None:
        """Take an entry in, behind the others of its key."""
        self.size += 1
        if entry.key is not None:
            chain = self._chains.get(entry.key)
            if chain is not None:
                chain.successors.append(entry)
                if chain.head in self._set_back:
                    self._note_set_back(entry)
                return
            self._chains[entry.key] = Chain(entry)
        self._queue_of(entry).append(entry)

    def set_aside(self, entry: Entry, verdict: Verdict) -> None:
        """Set an entry aside that is not held here: its key's successors must queue behind it."""
        if entry.key is not None and not self._frees(verdict):
            self._held.add(entry.key, entry.position)
        if entry.decide(self.name, verdict):
            self._on_complete(entry)

    def forget(self, entry: Entry) -> None:
        """Note that an entry is settled: if it was set aside, the table knows that its key is held."""
        verdict = entry.verdict_of(self.name)
        if entry.key is not None and not self._frees(verdict) and verdict is not HANDED_OVER:
            self._held.remove(entry.key, entry.position)

    def has_in_memory(self, key: str | None) -> bool:
        """Whether anything of this key is here, under way or waiting."""
        return key in self._chains

    def _is_too_long(self, chain: Chain) -> bool:
        limit = self.limit * 3 // 4
        if chain.head in self._set_back and self.set_back_count >= self._set_back_limit:
            return True
        return len(chain.successors) >= limit

    def _let_tail_release(self, chain: Chain) -> None:
        """What waits in the table behind a chain in memory is let go when the last of the chain is settled."""
        tail = chain.successors[-1] if chain.successors else chain.head
        tail.releases = True

    # -------------------------------------------------------------- going out

    def pick(self, *, newest: bool = False) -> Entry | None:
        """Take the next entry to be sent; it is under way from here on.

        What failed before is picked once in a while, and when there is nothing else: so a group of bad messages never
        makes up all of what is under way while there are others.

        Args:
            newest: Whether to take the newest of what was not tried yet, if there is any.
        """
        newest = newest and bool(self.fresh)
        queue = self.fresh if newest else self._next_queue()
        if not queue:
            return None
        entry = queue.pop() if newest else queue.popleft()
        self._put_under_way(entry)
        return entry

    def pick_more(self, may_follow: Callable[[Entry], bool], count: int) -> list[Entry]:
        """Take the next entries as well, as long as they may follow; they are under way from here on."""
        found: list[Entry] = []
        while len(found) < count and (queue := self.fresh or self.again) and may_follow(queue[0]):
            found.append(queue.popleft())
            self._put_under_way(found[-1])
        return found

    def put_back(self, entry: Entry) -> Entry:
        """Put an entry back to the front that was to be sent and was not, or not by itself; returns it."""
        entry = self.end_attempt(entry)
        self.fresh.appendleft(entry)
        return entry

    def end_attempt(self, entry: Entry) -> Entry:
        """Note that an attempt has ended, before it is ruled on.

        Returns:
            What is to be decided: the entry, or what stands for it since it was parted from its siblings.
        """
        return self.under_way.pop(entry)

    def suspect(self, entry: Entry) -> None:
        """Leave an entry to the breaker, which has not ruled on it."""
        self.suspects.add(entry)
        self._set_all_back(entry)

    def retry(self, entry: Entry) -> None:
        """Put an entry to the back that the breaker released: it is tried again behind what was not tried yet."""
        self.suspects.discard(entry)
        self._set_all_back(entry)
        self.again.append(entry)

    def decide(self, entry: Entry, verdict: Verdict) -> None:
        """Note the verdict on an entry that is in no queue any more, and let the next of its key go."""
        self.suspects.discard(entry)
        if self._set_back:
            self._end_set_back(entry)
        self.size -= 1
        if entry.decide(self.name, verdict):
            self._on_complete(entry)
        if entry.key is not None:
            self._advance(entry.key, entry, verdict)

    def _queue_of(self, entry: Entry) -> deque[Entry]:
        """Where it waits to be sent: what was charged before is likely to fail again, and many fall due at once."""
        return self.again if entry.attempts else self.fresh

    def _next_queue(self) -> deque[Entry]:
        self._turn += 1
        if not self.fresh or (self.again and self._turn % AGAIN_EVERY == 0):
            return self.again
        return self.fresh

    def _put_under_way(self, entry: Entry) -> None:
        self.under_way[entry] = entry
        if self._set_back:
            self._end_all_set_back(entry)

    # ------------------------------------------------------------------ keys

    def _frees(self, verdict: Verdict) -> bool:
        """Whether the next of the key may go."""
        return verdict is DELIVERED or verdict is EXPIRED or (verdict.state == "dead" and self.on_dead == "skip")

    def _advance(self, key: str, head: Entry, verdict: Verdict) -> None:
        """Let the next of the key go, or send all of them back to the table to wait."""
        chain = self._chains[key]
        if self._frees(verdict):
            if chain.successors:
                chain.head = chain.successors.popleft()
                if self._set_back:
                    self._end_all_set_back(chain.head)
                self._queue_of(chain.head).append(chain.head)
            else:
                del self._chains[key]
            return
        del self._chains[key]
        self._held.add(key, head.position)
        self._send_back(chain.successors, BLOCKED)

    def _send_back(self, successors: Iterable[Entry], verdict: Verdict) -> None:
        for successor in successors:
            self._end_set_back(successor)
            self.size -= 1
            self.set_aside(successor, verdict)

    # -------------------------------------------------------------- set back

    @property
    def _set_back_limit(self) -> int:
        return max(self.limit // 2, RESERVE)

    def _group(self, head: Entry) -> list[Entry]:
        """An entry and what is chained behind it."""
        return [head, *self._chains[head.key].successors] if head.key is not None else [head]

    def _set_all_back(self, head: Entry) -> None:
        """Keep a head and its chain out of the room of what was not tried; beyond a bound, the chain goes back."""
        for entry in self._group(head):
            self._note_set_back(entry)
        if head.key is not None and self.set_back_count > self._set_back_limit:
            chain = self._chains[head.key]
            if chain.successors:
                head.releases = True
                successors, chain.successors = chain.successors, deque()
                self._send_back(successors, BEHIND)

    def _end_all_set_back(self, head: Entry) -> None:
        for entry in self._group(head):
            self._end_set_back(entry)

    def _note_set_back(self, entry: Entry) -> None:
        self._set_back.add(entry)
        self.set_back_count = len(self._set_back)

    def _end_set_back(self, entry: Entry) -> None:
        self._set_back.discard(entry)
        self.set_back_count = len(self._set_back)

    # ------------------------------------------------------------- letting go

    def waiting(self) -> Iterator[Entry]:
        """What is here and not under way."""
        yield from self.fresh
        yield from self.again
        yield from self.suspects
        for chain in self._chains.values():
            yield from chain.successors

    def evict(self, belongs: Callable[[Entry], bool]) -> list[Entry]:
        """Let go of every entry that `belongs` and is not under way.

        Returns:
            The entries, without a verdict from here.
        """
        gone = {e for e in self.waiting() if belongs(e)}
        if not gone:
            return []
        self.fresh = deque(e for e in self.fresh if e not in gone)
        self.again = deque(e for e in self.again if e not in gone)
        self.suspects -= gone
        for entry in gone:
            self._end_set_back(entry)
        for key in {e.key for e in gone if e.key is not None}:
            self._unchain(key, gone)
        self.size -= len(gone)
        return sorted(gone, key=_position)

    def _unchain(self, key: str, gone: set[Entry]) -> None:
        """Take entries that leave out of their chain; it lives on while anything of its key does."""
        chain = self._chains[key]
        chain.successors = deque(e for e in chain.successors if e not in gone)
        if chain.head not in gone:
            return
        if not chain.successors:
            del self._chains[key]
            return
        chain.head = chain.successors.popleft()
        self._queue_of(chain.head).append(chain.head)

    def park(self, belongs: Callable[[Entry], bool]) -> list[Entry]:
        """Put every entry that `belongs` back into the table, and what waits with its key; not what is under way.

        Returns:
            The entries.
        """
        keys = {e.key for e in self.waiting() if e.key is not None and belongs(e)}
        gone = self.evict(lambda e: e.key in keys or belongs(e))
        for entry in gone:
            self.set_aside(entry, PARKED)
        return gone

    def park_down_to_reserve(self) -> list[Entry]:
        """Keep a few entries to probe with, the oldest and the newest; put the rest back into the table.

        Returns:
            What was put back.
        """
        oldest, newest = self.reserve // 2, self.reserve - self.reserve // 2
        fresh, again = list(self.fresh), list(self.again)
        keep = {*fresh[:oldest], *fresh[-newest:], *again[:oldest], *again[-newest:], *self.under_way.values()}
        kept_keys = {e.key for e in keep if e.key is not None}
        return self.park(lambda e: e not in keep and e.key not in kept_keys)

    def overflow(self) -> list[Entry]:
        """Put back into the table what was set back beyond its bound, the oldest first; returns it."""
        surplus = max(len(self.again) - self._set_back_limit, 0)
        if not surplus:
            return []
        oldest = set(list(self.again)[:surplus])
        return self.park(oldest.__contains__)

    def hand_over(self, entry: Entry, other: Entry) -> bool:
        """Have `other` stand for what is left of an entry that is under way or a suspect; false if it is neither.

        The entry itself is decided as parked, so that its other destinations' verdicts can be settled.
        """
        is_suspect = entry in self.suspects
        given = next((given for given, now in self.under_way.items() if now is entry), None)
        if given is not None:
            self.under_way[given] = other
        elif is_suspect:
            self.suspects.remove(entry)
            self.suspects.add(other)
        else:
            return False
        if entry in self._set_back:
            self._set_back.remove(entry)
            self._set_back.add(other)
        if entry.key is not None and self._chains[entry.key].head is entry:
            self._chains[entry.key].head = other
        if entry.decide(self.name, HANDED_OVER):
            self._on_complete(entry)
        return True


def _position(entry: Entry) -> int:
    return entry.position
