"""Late commits are found by a cursor and visibility, in any interleaving of transactions."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.decide.visibility import Horizon


@dataclass
class Row:
    position: int
    xid: int


@dataclass
class Server:
    """PostgreSQL, as far as visibility goes: ids when a transaction first writes, positions when a row is inserted."""

    last_xid: int = 100
    last_position: int = 0
    completed: int = 100  # the highest id of a transaction that has ended
    running: dict[int, list[Row]] = field(default_factory=dict)
    committed: list[Row] = field(default_factory=list)

    def begin(self) -> int:
        self.last_xid += 1
        self.running[self.last_xid] = []
        return self.last_xid

    def insert(self, xid: int) -> None:
        self.last_position += 1
        self.running[xid].append(Row(self.last_position, xid))

    def end(self, xid: int, *, commit: bool) -> None:
        rows = self.running.pop(xid)
        self.completed = max(self.completed, xid)
        if commit:
            self.committed += rows

    def snapshot(self) -> str:
        """Return a snapshot as pg_current_snapshot() prints it: xmax is one above the highest id that has ended."""
        xmax = self.completed + 1
        xip = sorted(xid for xid in self.running if xid < xmax)
        xmin = min([*self.running, xmax])
        return f"{min(xmin, xmax)}:{xmax}:{','.join(map(str, xip))}"


@dataclass
class Reader:
    """Reads as the relay does: a snapshot, what became visible late, what is next."""

    server: Server
    page: int
    cursor: int = 0
    horizon: Horizon | None = None
    taken: Horizon | None = None
    seen: set[int] = field(default_factory=set)

    def take_snapshot(self) -> None:
        self.taken = Horizon.parse(self.server.snapshot())

    def read(self) -> None:
        if self.taken is None:
            return
        if self.horizon is not None:
            late = [r for r in self.server.committed if r.position <= self.cursor and _is_new(r, self.horizon)]
            self.seen |= {r.position for r in late}
        self.horizon, self.taken = self.taken, None
        following = sorted(r.position for r in self.server.committed if r.position > self.cursor)[: self.page]
        self.seen |= set(following)
        self.cursor = following[-1] if following else self.cursor


def _is_new(row: Row, horizon: Horizon) -> bool:
    return row.xid >= horizon.xmax or row.xid in horizon.running


actions = st.lists(
    st.one_of(
        st.just(("begin", 0)),
        st.tuples(st.sampled_from(["insert", "insert", "commit", "roll back"]), st.integers(0, 5)),
        st.just(("snapshot", 0)),
        st.just(("read", 0)),
    ),
    max_size=80,
)


def play(script: list[tuple[str, int]], server: Server, reader: Reader) -> None:
    for what, which in script:
        running = list(server.running)
        if what == "begin":
            server.begin()
        elif what == "snapshot":
            reader.take_snapshot()
        elif what == "read":
            reader.read()
        elif running:
            xid = running[which % len(running)]
            server.insert(xid) if what == "insert" else server.end(xid, commit=what == "commit")


@settings(max_examples=150)
@given(actions, st.integers(1, 3))
def test_every_row_below_the_cursor_is_read_by_the_first_look_after_its_commit(
    script: list[tuple[str, int]], page: int
) -> None:
    server = Server()
    reader = Reader(server, page)
    play(script, server, reader)
    reader.take_snapshot()
    reader.read()
    assert {r.position for r in server.committed if r.position <= reader.cursor} <= reader.seen


@settings(max_examples=150)
@given(actions, st.integers(1, 3))
def test_every_committed_row_is_read_in_the_end_and_no_other(script: list[tuple[str, int]], page: int) -> None:
    server = Server()
    reader = Reader(server, page)
    play(script, server, reader)
    while not {r.position for r in server.committed} <= reader.seen:
        cursor = reader.cursor
        reader.take_snapshot()
        reader.read()
        assert reader.cursor > cursor or {r.position for r in server.committed} <= reader.seen
    assert reader.seen == {r.position for r in server.committed}


@settings(max_examples=150)
@given(actions, actions)
def test_a_horizon_is_past_only_when_all_that_ran_then_have_ended(
    before: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    server = Server()
    reader = Reader(server, 1)
    play(before, server, reader)
    running = set(server.running)
    server.end(server.begin(), commit=True)  # setting the flag: setval takes a separate transaction id
    then = Horizon.parse(server.snapshot())
    play(after, server, reader)
    server.end(server.begin(), commit=True)
    now = Horizon.parse(server.snapshot())
    assert now.is_past(then) == (not running & set(server.running))


def test_a_snapshot_is_read_as_postgresql_prints_it() -> None:
    assert Horizon.parse("10:20:10,14,15") == Horizon(20, (10, 14, 15))
    assert Horizon.parse("20:20:") == Horizon(20)
