"""What waits for one destination in memory.

With an ordering key, one entry is at the head and its successors wait in a chain; when the head cannot be delivered
now, the whole chain goes back to the table (**blocked**), head first, so that the table never knows a successor without
its predecessor.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from relay.decide.backoff import Policy
from relay.decide.blame import Blame
from relay.decide.verdict import BEHIND, BLOCKED, DELIVERED, PARKED, Verdict
from relay.entry import Entry

RESERVE = 8  # what a destination that is down keeps in memory, to probe with


class Waiting:
    """The entries of one destination: in the queue, in the chains behind it, under way, under suspicion.

    Args:
        name: The destination.
        policy: How patient its deliveries are.
        limit: Entries held in memory at most.
        on_dead: ``"block"`` or ``"skip"``: whether a dead letter holds its key's successors up.
        on_complete: Called with an entry when the last of its verdicts is in.
    """

    def __init__(
        self, name: str, *, policy: Policy, limit: int, on_dead: str, on_complete: Callable[[Entry], None]
    ) -> None:
        self.name = name
        self.limit = limit
        self.on_dead = on_dead
        self.blame: Blame[Entry] = Blame(policy)
        self.operator_pause: str | None = None
        self.size = 0
        self.has_siblings = False
        self.held_keys: Counter[str] = Counter()  # key → entries of it that were set aside and are not settled yet
        self._queue: deque[Entry] = deque()
        self._chains: dict[str, deque[Entry]] = {}
        self._under_way: dict[tuple[str, str | None], Entry] = {}
        self._on_complete = on_complete

    # ------------------------------------------------------------- coming in

    @property
    def is_open(self) -> bool:
        """Whether it takes whatever comes, as far as anybody knows."""
        return self.operator_pause is None and self.blame.condition == "healthy"

    @property
    def wants(self) -> int:
        """How many more entries it has room for."""
        return max((self.limit if self.is_open else RESERVE) - self.size, 0)

    def offer(self, entry: Entry) -> None:
        """Take an entry in, behind the others of its key."""
        self.size += 1
        key = entry.key
        if key is not None:
            chain = self._chains.get(key)
            if chain is not None:
                chain.append(entry)
                return
            self._chains[key] = deque()
        self._queue.append(entry)

    def take_in_or_turn_away(self, entry: Entry, *, held: bool) -> None:
        """Take a newcomer in, if there is room and nothing before it waits in the table.

        Args:
            entry: The newcomer.
            held: Whether the table holds an earlier message of its key that is not done.
        """
        chain = self._chains.get(entry.key) if entry.key is not None else None
        if held or entry.key in self.held_keys or (chain is not None and len(chain) >= self.limit * 3 // 4):
            if chain is not None:
                self._let_tail_release(entry.key, chain)
            self.turn_away(entry, BLOCKED if chain is None else BEHIND)
        elif not self.has_siblings or self.wants:  # an only destination is read while it has room, and no longer
            self.offer(entry)
        else:
            self.turn_away(entry, PARKED)

    def turn_away(self, entry: Entry, verdict: Verdict) -> None:
        """Set an entry aside that was never taken in; its key's successors must queue behind it."""
        if entry.key is not None and not self._frees(verdict):
            self.held_keys[entry.key] += 1
        if entry.decide(self, verdict):
            self._on_complete(entry)

    def forget(self, entry: Entry) -> None:
        """It is settled: if it was set aside, the table knows now that its key is held."""
        key = entry.key
        if key is None or self._frees(entry.verdict_of(self)):
            return
        self.held_keys[key] -= 1
        if self.held_keys[key] <= 0:
            del self.held_keys[key]

    def has_in_memory(self, key: str | None) -> bool:
        """Whether anything of this key is here, under way or waiting."""
        return key in self._chains

    # --------------------------------------------------------------- keys

    def _frees(self, verdict: Verdict) -> bool:
        """Whether the next of the key may go."""
        return verdict is DELIVERED or (verdict.state == "dead" and self.on_dead == "skip")

    def _let_tail_release(self, key: str | None, chain: deque[Entry]) -> None:
        """What waits in the table behind a chain in memory is let go when the last of the chain is settled."""
        tail = chain[-1] if chain else next((e for e in self._heads() if e.key == key), None)
        if tail is not None:
            tail.releases = True

    def _heads(self) -> list[Entry]:
        return [*self._under_way.values(), *self._queue, *(s.delivery for s in self.blame.suspects)]

    def _decide(self, entry: Entry, verdict: Verdict) -> None:
        self.size -= 1
        if entry.decide(self, verdict):
            self._on_complete(entry)
        if entry.key is not None:
            self._advance(entry.key, verdict)

    def _advance(self, key: str, verdict: Verdict) -> None:
        """Let the next of the key go, or send all of them back to the table to wait."""
        chain = self._chains[key]
        if self._frees(verdict):
            if chain:
                self._queue.append(chain.popleft())
            else:
                del self._chains[key]
            return
        del self._chains[key]
        self.held_keys[key] += 1 + len(chain)
        for successor in chain:
            self.size -= 1
            if successor.decide(self, BLOCKED):
                self._on_complete(successor)

    # ------------------------------------------------------------- letting go

    def evict(self, belongs: Callable[[Entry], bool]) -> list[Entry]:
        """Let go of every entry that `belongs` and is not under way.

        Returns:
            The entries, without a verdict from this lane.
        """
        gone = [e for e in self._waiting() if belongs(e)]
        if not gone:
            return []
        out = {id(e) for e in gone}
        self._queue = deque(e for e in self._queue if id(e) not in out)
        self.blame.suspects = [s for s in self.blame.suspects if id(s.delivery) not in out]
        self._chains = self._rebuilt_chains(out)
        self.size -= len(gone)
        return gone

    def _waiting(self) -> list[Entry]:
        """What is here and not under way."""
        suspects = [s.delivery for s in self.blame.suspects]
        return [*self._queue, *suspects, *(e for chain in self._chains.values() for e in chain)]

    def _rebuilt_chains(self, out: set[int]) -> dict[str, deque[Entry]]:
        """Chains without the entries that left; a chain lives on while anything of its key does."""
        alive = {e.key for e in self._heads() if e.key is not None}
        chains: dict[str, deque[Entry]] = {}
        for key, chain in self._chains.items():
            rest = deque(e for e in chain if id(e) not in out)
            if key in alive or rest:
                chains[key] = rest
        return chains

    def park_waiting(self) -> None:
        """A destination that is down keeps a few entries to probe with; the rest goes back to the table."""
        queue = list(self._queue)
        keep = {id(e) for e in [*queue[: RESERVE // 2], *queue[-RESERVE // 2 :], *self._under_way.values()]}
        keep |= {id(s.delivery) for s in self.blame.suspects}
        kept_keys = {e.key for e in self._heads() if id(e) in keep and e.key is not None}
        self.park(lambda e: id(e) not in keep and e.key not in kept_keys)

    def park(self, belongs: Callable[[Entry], bool]) -> None:
        """Put every entry that `belongs` back into the table, and what waits with its key; not what is under way."""
        keys = {e.key for e in self._waiting() if e.key is not None and belongs(e)}
        for entry in sorted(self.evict(lambda e: e.key in keys or belongs(e)), key=lambda e: e.position):
            self.turn_away(entry, PARKED)
