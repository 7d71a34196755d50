"""A database for relays under test: messages go in through the public API, listeners note what reaches them."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from outbox import Draft, Message, Reject, emit_many
from outbox.tables import tables
from relay import ListenerSettings, Relay, Settings
from relay.admin.access.queries import snapshot
from relay.admin.audit import AuditEntry, record
from relay.admin.status import Status, status
from relay.delivery.lane import Lane
from support.databases import Database
from support.waiting import eventually_async

PATIENCE = {"backoff_s": 0.02, "backoff_max_s": 0.05}  # short waits, for tests


@dataclass(frozen=True)
class Attempt:
    n: int
    id: str
    key: str | None
    number: int  # the attempt's number in the message
    body: bytes


class Taker:
    """A listener that notes every attempt, and takes the messages that its fate allows.

    Args:
        fate: Called with each message; what it raises, the listener raises.
    """

    def __init__(self, fate: Callable[[Message], object] = lambda message: None) -> None:
        self.fate = fate
        self.attempts: list[Attempt] = []
        self.taken: list[int] = []
        self.taken_of_key: defaultdict[str | None, list[int]] = defaultdict(list)
        self.tried_of_key: defaultdict[str | None, list[int]] = defaultdict(list)
        self._waiters: list[asyncio.Event] = []

    async def __call__(self, message: Message) -> None:
        self.note(message)
        self.fate(message)
        self.take(message)

    def note(self, message: Message) -> None:
        n, key = message.data["n"], message.ordering_key
        for waiter in self._waiters:
            waiter.set()
        self.attempts.append(Attempt(n, message.id, key, message.attempt, message.body))
        self.tried_of_key[key].append(n)

    def take(self, message: Message) -> None:
        self.taken.append(message.data["n"])
        self.taken_of_key[message.ordering_key].append(message.data["n"])

    async def has_tried(self, count: int) -> None:
        """Wait for a total number of attempts."""
        waiter = asyncio.Event()
        self._waiters.append(waiter)
        while len(self.attempts) < count:
            waiter.clear()
            await waiter.wait()
        self._waiters.remove(waiter)

    @property
    def tries(self) -> Counter[int]:
        return Counter(attempt.n for attempt in self.attempts)

    def first_tries_of(self, key: str) -> list[int]:
        return list(dict.fromkeys(self.tried_of_key[key]))


def failing(*numbers: int, times: int | None = None, error: type[Exception] = ValueError) -> Callable[[Message], None]:
    """Return a fate: these messages fail, always or a number of times each."""
    seen: Counter[int] = Counter()

    def fate(message: Message) -> None:
        n = message.data["n"]
        seen[n] += 1
        if n in numbers and (times is None or seen[n] <= times):
            raise error(f"not {n}")

    return fate


def rejecting(*numbers: int) -> Callable[[Message], None]:
    return failing(*numbers, error=Reject)


class Outage:
    """A fate with which everything fails while the outage lasts."""

    def __init__(self, *, down: bool = True) -> None:
        self.down = down
        self.tries_while_down = 0

    def __call__(self, message: Message) -> None:
        if self.down:
            self.tries_while_down += 1
            raise ConnectionError("down")


class Scene:
    """One database with an outbox."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.kind = database.kind
        self.count = 0

    def emit(self, count: int = 1, *, type: str = "page.read", pad: int = 0, **options: Any) -> list[int]:
        """Commit ``count`` messages in one transaction; return their numbers, which continue the earlier ones."""
        with self.database.engine.begin() as connection:
            return self.emit_into(connection, count, type=type, pad=pad, **options)

    def emit_into(
        self, target: Any, count: int = 1, *, type: str = "page.read", pad: int = 0, **options: Any
    ) -> list[int]:
        numbers = list(range(self.count, self.count + count))
        self.count += count
        emit_many(target, [Draft(type, {"n": n, "pad": "x" * pad}, **options) for n in numbers])
        return numbers

    def emit_keys(self, keys: Sequence[str | None]) -> None:
        """Commit one message for each of these keys, in this order, in one transaction."""
        drafts = [Draft("page.read", {"n": self.count + i}, ordering_key=key) for i, key in enumerate(keys)]
        self.count += len(drafts)
        with self.database.engine.begin() as connection:
            emit_many(connection, drafts)

    def settings(self, destinations: dict[str, Any], **options: Any) -> Settings:
        quick = {
            "beat_s": 0.05,
            "slow_poll_s": 0.05,
            "quiet_s": 0.2,
            "health_port": 0,
            "stall_timeout_s": 3600,
            "database_url": self.database.url,
        }
        return Settings(**{**quick, "destinations": destinations, **options})

    def relay(self, destinations: dict[str, Any], *, apply: bool = False, **options: Any) -> Relay:
        """Return a relay with these destinations: listeners, or their settings."""
        made = {n: d if isinstance(d, ListenerSettings) else to(d) for n, d in destinations.items()}
        return Relay(self.settings(made, **options), apply=apply)

    async def drain(self, destinations: dict[str, Any], **options: Any) -> int:
        async with self.relay(destinations, **options) as relay:
            return (await relay.drain()).delivered

    @property
    def status(self) -> Status:
        with snapshot(self.database.engine) as connection:
            return status(connection)

    @property
    def account(self) -> tuple[int, int, int, int]:
        """The numbers of messages: (delivered, waiting, dead, unrouted)."""
        found = self.status
        return found.delivered, found.waiting, found.dead, found.unrouted

    async def becomes(self, *account: int, deadline_s: float = 30) -> None:
        """Wait until (delivered, waiting, dead, unrouted) are these."""

        def is_so() -> bool:
            assert self.account == account
            return True

        await eventually_async(is_so, deadline_s=deadline_s, what=f"the account becomes {account}")

    def ids(self) -> dict[int, str]:
        """Return number → id of the messages that are not in the history."""
        m = tables().message.c
        with self.database.engine.connect() as connection:
            return {row.data["n"]: row.id for row in connection.execute(sa.select(m.id, m.data))}

    def audit(self) -> list[AuditEntry]:
        """Return operators' actions, the oldest first."""
        with self.database.engine.connect() as connection:
            return record(connection, limit=100)[::-1]

    def deliveries(self) -> Counter[tuple[str, str]]:
        """Return (destination, state) → how many deliveries are set aside."""
        rows = self.database.rows("SELECT destination, state, count(*) AS count FROM outbox_delivery GROUP BY 1, 2")
        return Counter({(r.destination, r.state): r.count for r in rows})

    def attempts_charged(self) -> int:
        return self.database.scalar("SELECT coalesce(sum(attempts), 0) FROM outbox_delivery")


def lane_of(relay: Any, name: str = "a") -> Lane:
    lane: Lane = relay._running.loop_side.dispatcher.lanes[name]
    return lane


def to(listener: Any, **options: Any) -> ListenerSettings:
    """Return a destination with this listener and short waits."""
    return ListenerSettings(listener=listener, **{**PATIENCE, **options})
