"""Fair shares: after any events in any order, every shard has one owner and no relay has too many."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.tables import SHARD_COUNT
from relay.decide.shares import FREE_BEATS, fair_share, plan_shares

SHARDS = range(SHARD_COUNT)


@dataclass
class Server:
    """The lock table: who is alive, what each of them asks for, who holds which shard."""

    wants_of: dict[int, int] = field(default_factory=dict)
    owner_of: dict[int, int] = field(default_factory=dict)


@dataclass
class Peer:
    """A relay, as far as shares go. One that cannot own, for example because it is about to stop, only beats."""

    me: int
    server: Server
    can_own: bool = True
    only: list[int] | None = None
    lacking: int = 0
    giving: list[int] = field(default_factory=list)
    free_beats: dict[int, int] = field(default_factory=dict)

    @property
    def mine(self) -> list[int]:
        return sorted(s for s, owner in self.server.owner_of.items() if owner == self.me)

    def beat(self) -> None:
        server = self.server
        server.wants_of[self.me] = self.lacking
        if not self.can_own:
            return
        held = set(server.owner_of)
        for shard in SHARDS:
            self.free_beats[shard] = 0 if shard in held else self.free_beats.get(shard, 0) + 1
        mine = self.mine
        plan = plan_shares(self.me, dict(server.wants_of), held, mine, self.free_beats, self.only)
        self.lacking = plan.wants
        assert not set(plan.take) & set(mine), "a lock that is held already would stack"
        for shard in plan.take:
            server.owner_of.setdefault(shard, self.me)
        if not self.giving:
            self.giving = list(plan.give)

    def hand_back(self) -> None:
        """Hand the shards back, later, when nothing of them is under way any more."""
        for shard in self.giving:
            assert self.server.owner_of.pop(shard) == self.me
        self.giving = []

    def die(self) -> None:
        self.giving = []
        self.server.wants_of.pop(self.me, None)
        for shard in self.mine:
            del self.server.owner_of[shard]


def settle_down(peers: list[Peer], rounds: int = 12) -> None:
    for _ in range(rounds):
        for peer in peers:
            peer.beat()
        for peer in peers:
            peer.hand_back()


def run(steps: list[tuple[int, str]], server: Server, peers: dict[int, Peer]) -> None:
    for number, what in steps:
        peer = peers.setdefault(number, Peer(number, server))
        if what == "beat":
            peer.beat()
        elif what == "hand back":
            peer.hand_back()
        else:
            peer.die()
            del peers[number]


steps = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from(["beat", "beat", "beat", "hand back", "die"])), max_size=30
)
few = settings(max_examples=40)


@given(st.integers(1, 200))
def test_fair_shares_cover_every_shard_and_differ_by_at_most_one(alive: int) -> None:
    shares = [fair_share(rank, alive) for rank in range(alive)]
    assert sum(shares) == SHARD_COUNT
    assert max(shares) - min(shares) <= 1


@few
@given(steps)
def test_relays_that_come_and_go_in_any_order_end_with_fair_shares_of_every_shard(
    script: list[tuple[int, str]],
) -> None:
    server = Server()
    peers: dict[int, Peer] = {}
    run([*script, (6, "beat"), (7, "beat")], server, peers)
    settle_down(list(peers.values()))
    assert sorted(server.owner_of) == list(SHARDS)
    owned = Counter(server.owner_of.values())
    alive = sorted(peers)
    assert [owned[number] for number in alive] == [fair_share(rank, len(alive)) for rank in range(len(alive))]


@few
@given(steps, st.integers(1, 6))
def test_the_shards_of_a_living_relay_that_cannot_own_go_to_the_others(
    script: list[tuple[int, str]], cripple: int
) -> None:
    server = Server()
    peers: dict[int, Peer] = {}
    run([(n, what) for n, what in script if n != cripple], server, peers)
    peers[cripple] = Peer(cripple, server, can_own=False)
    peers.setdefault(7, Peer(7, server))
    settle_down(list(peers.values()), rounds=16)
    assert sorted(server.owner_of) == list(SHARDS)
    assert cripple not in server.owner_of.values()
    able = sorted(set(peers) - {cripple})
    owned = Counter(server.owner_of.values())
    assert all(owned[n] >= fair_share(sorted(peers).index(n), len(peers)) for n in able)


@few
@given(steps)
def test_once_every_relay_has_its_share_nothing_changes_hands_any_more(script: list[tuple[int, str]]) -> None:
    server = Server()
    peers: dict[int, Peer] = {}
    run([*script, (6, "beat")], server, peers)
    settle_down(list(peers.values()))
    before = dict(server.owner_of)
    settle_down(list(peers.values()), rounds=5)
    assert server.owner_of == before


def test_no_shard_is_handed_back_to_a_relay_that_may_not_take_it_yet() -> None:
    """It lost its session, and for a moment may only take its former shards, which a peer holds by now."""
    server = Server()
    peer = Peer(1, server)
    settle_down([peer])
    woken = Peer(2, server, only=list(range(32)))
    for _ in range(6):
        for each in (woken, peer):
            each.beat()
        assert peer.giving == []
    woken.only = None
    settle_down([woken, peer])
    assert Counter(server.owner_of.values()) == {1: 32, 2: 32}


def test_a_relay_takes_back_what_it_held_before_beyond_its_share() -> None:
    plan = plan_shares(2, {1: 0, 2: 0}, {0, 1}, [], {}, only=range(64))
    assert (sorted(plan.take), plan.wants) == (list(range(2, 64)), 0)


def test_a_relay_that_can_own_again_gets_its_share_back() -> None:
    server = Server()
    peers = {n: Peer(n, server, can_own=n != 2) for n in (1, 2, 3)}
    settle_down(list(peers.values()), rounds=16)
    peers[2].can_own = True
    settle_down(list(peers.values()))
    assert sorted(Counter(server.owner_of.values()).items()) == [(1, 22), (2, 21), (3, 21)]


@given(
    st.integers(1, 5),
    st.dictionaries(st.integers(1, 5), st.integers(0, 64), max_size=5),
    st.dictionaries(st.sampled_from(SHARDS), st.integers(1, 6)),
    st.dictionaries(st.sampled_from(SHARDS), st.integers(0, 5)),
)
def test_a_plan_takes_only_what_is_free_and_gives_only_what_is_held(
    me: int, wants_of: dict[int, int], owner_of: dict[int, int], free_beats: dict[int, int]
) -> None:
    mine = [s for s, owner in owner_of.items() if owner == me]
    plan = plan_shares(me, wants_of, set(owner_of), mine, free_beats)
    assert not set(plan.take) & set(owner_of)
    assert len(set(plan.take)) == len(plan.take)
    assert set(plan.give) <= set(mine)
    assert not (plan.take and plan.give)
    alive = sorted({me, *wants_of})
    assert len(mine) - len(plan.give) >= min(len(mine), fair_share(alive.index(me), len(alive)))


def test_a_relay_alone_takes_everything_at_once() -> None:
    plan = plan_shares(1, {1: 0}, set(), [], {})
    assert (sorted(plan.take), plan.give, plan.wants) == (list(SHARDS), [], 0)


def test_relays_that_start_together_begin_at_different_shards() -> None:
    first = plan_shares(1, {1: 0, 2: 0}, set(), [], {})
    second = plan_shares(2, {1: 0, 2: 0}, set(), [], {})
    assert not set(first.take) & set(second.take)


def test_a_newcomer_asks_for_what_it_lacks_and_takes_nothing_that_is_held() -> None:
    plan = plan_shares(2, {1: 0, 2: 0}, set(SHARDS), [], {})
    assert (plan.take, plan.give, plan.wants) == ([], [], 32)


def test_a_relay_with_too_many_shards_keeps_them_until_a_peer_asks() -> None:
    assert plan_shares(1, {1: 0, 2: 0}, set(SHARDS), list(SHARDS), {}).give == []
    assert plan_shares(1, {1: 0, 2: 32}, set(SHARDS), list(SHARDS), {}).give == list(range(32, 64))
    assert len(plan_shares(1, {1: 0, 2: 3}, set(SHARDS), list(SHARDS), {}).give) == 3


@pytest.mark.parametrize("beats", range(FREE_BEATS + 1))
def test_more_than_a_share_is_taken_only_after_two_beats(beats: int) -> None:
    mine = list(range(32))
    plan = plan_shares(1, {1: 0, 2: 0}, mine, mine, dict.fromkeys(range(32, 64), beats))
    assert sorted(plan.take) == (list(range(32, 64)) if beats >= FREE_BEATS else [])
