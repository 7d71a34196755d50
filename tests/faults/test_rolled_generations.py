"""New destinations are applied while relays run and messages flow: each message goes to those of one generation."""

from collections import defaultdict
from threading import Event, Thread

from support.databases import Database
from support.fleet import Fleet
from support.reckoning import unsettled
from support.waiting import eventually

from outbox import emit_many

BEFORE = {"log": {"listener": "support.recording:record", "events": ["x.done", "y.done"]}}
AFTER = {
    "log": {"listener": "support.recording:record", "events": ["x.done"]},
    "log-too": {"listener": "support.recording:record_too", "events": ["x.done", "y.done", "z.done"]},
}
TYPES = ("x.done", "y.done", "z.done")  # of message n: TYPES[n % 3]
ROUTES = {
    "old": ({"log"}, {"log"}, set()),
    "new": ({"log", "log-too"}, {"log-too"}, {"log-too"}),
}


class Flow:
    """A worker that commits one message after another, and knows which it began after the new ones were applied."""

    def __init__(self, database: Database) -> None:
        self.numbers: dict[str, int] = {}
        self.late: set[str] = set()
        self.is_applied, self._is_over = Event(), Event()
        self._database = database
        self._thread = Thread(target=self._emit)

    def __enter__(self) -> "Flow":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _emit(self) -> None:
        n = 0
        while not self._is_over.is_set():
            is_late = self.is_applied.is_set()
            with self._database.engine.begin() as connection:
                numbers = range(n, n + 3)
                ids = emit_many(connection, [(TYPES[k % 3], {"n": k}) for k in numbers])
            n += 3
            self.numbers.update(zip(ids, numbers, strict=True))
            if is_late:
                self.late.update(ids)
            self._is_over.wait(0.001)  # so slowly that the relays keep up on two cores


def test_a_new_generation_takes_over_from_running_relays_without_losing_or_misrouting_a_message(
    postgres_database, fleet, spawn
):
    generation = "SELECT max(generation) FROM outbox_destination"
    fleet.configure(postgres_database.url, destinations=BEFORE, beat_s=0.2)
    old = [spawn("outbox", "relay", env=fleet.env) for _ in range(2)]
    owning = "SELECT count(*) FROM outbox_relay WHERE jsonb_array_length(shards) > 0"
    eventually(lambda: postgres_database.scalar(owning) == 2, deadline_s=30, what="both relays have a share")
    with Flow(postgres_database) as flow:
        eventually(lambda: len(fleet.sends()) > 300, deadline_s=30, what="messages flow")
        fleet.hold_path.touch()
        assert all(eventually(lambda pid=relay.pid: under_way(fleet, postgres_database, pid) >= 5) for relay in old)
        fleet.configure(postgres_database.url, destinations=AFTER, beat_s=0.2)
        new = [fleet.start("--apply"), fleet.start("--apply")]
        eventually(lambda: postgres_database.scalar(generation) == 2, what="others are registered")
        flow.is_applied.set()
        for relay in old:
            relay.wait_for_output("relay_dismissed")
        fleet.hold_path.unlink()
        assert [relay.wait() for relay in old] == [3, 3]
        before = len(flow.late)
        eventually(lambda: len(flow.late) > before + 300, what="messages go on flowing")
    eventually(lambda: unsettled(postgres_database) == 0, deadline_s=60, what="everything is settled")

    for relay in old:
        assert relay.stderr.rstrip().splitlines()[-1].startswith("outbox: other destinations were registered")
        assert "Traceback" not in relay.stderr
    sent = defaultdict(list)
    pids = {"old": {relay.pid for relay in old}, "new": {relay.pid for relay in new}}
    for send in fleet.sends():
        sent[send.id].append(send)
    assert set(sent) == set(flow.numbers), "every message was sent, and no other"
    for message_id, sends in sent.items():
        who = "old" if {send.pid for send in sends} <= pids["old"] else "new"
        assert {send.pid for send in sends} <= pids[who], f"{message_id} was routed twice"
        assert sorted(send.destination for send in sends) == sorted(ROUTES[who][flow.numbers[message_id] % 3])
        assert who == "new" or message_id not in flow.late, f"{message_id} was committed after others were applied"
    history = postgres_database.rows("SELECT id FROM outbox_history")
    assert sorted(str(row.id) for row in history) == sorted(flow.numbers)


def under_way(fleet: Fleet, database: Database, pid: int) -> int:
    """Return how many messages a relay has begun to send and not settled."""
    settled = {str(row.id) for row in database.rows("SELECT id FROM outbox_history")}
    return len({send.id for send in fleet.sends() if send.pid == pid} - settled)
