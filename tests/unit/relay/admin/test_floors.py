"""The walk to the oldest ready messages: in pieces, over any number of settled rows, and never past a ready one."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from outbox.tables import SHARD_COUNT
from relay.admin.timeline.floors import SPAN, Floors

FAR = 32 * SPAN  # in shard 0


class Index:
    """Ready messages by position, in an index that answers a limited number of times per sample."""

    def __init__(self, *ready: int) -> None:
        self.ready = set(ready)
        self.answers = 1000
        self.spans: list[int] = []

    def __call__(self, shards: Sequence[int], floors: Sequence[int], span: int) -> list[Any] | None:
        if not self.answers:
            return None
        self.answers -= 1
        self.spans.append(span)
        return [
            SimpleNamespace(shard=shard, position=position)
            for shard, floor in zip(shards, floors, strict=True)
            for position in sorted(self.ready)
            if position % SHARD_COUNT == shard and floor <= position < floor + span
        ]


def found_by(floors: Floors, index: Index, last: int, *, answers: int = 1000) -> tuple[list[int], bool]:
    index.answers, index.spans = answers, []
    rows, is_complete = floors.walk(index, last)
    return sorted({row.position for row in rows}), is_complete


def test_a_walk_finds_what_is_ready() -> None:
    assert found_by(Floors(), Index(64, 65, 9_000), 10_000) == ([64, 65, 9_000], True)


def test_a_walk_goes_on_where_the_last_sample_ended() -> None:
    floors, index, last = Floors(), Index(FAR), FAR + SPAN
    samples = [found_by(floors, index, last, answers=2) for _ in range(40)]
    assert samples[0] == ([], False)
    assert samples[-1] == ([FAR], True)
    assert max(index.spans) <= 2 * SPAN
    assert floors.first[0] == FAR


def test_a_walk_passes_no_position_that_may_be_committed_late() -> None:
    floors, index = Floors(), Index()
    for last in (1_000, 2_000):
        assert found_by(floors, index, last) == ([], True)
    assert set(floors.first) == {1_001}
    index.ready.add(1_500)
    assert found_by(floors, index, 3_000) == ([1_500], True)


def test_a_message_that_became_ready_behind_the_walk_is_found() -> None:
    floors, index, last = Floors(), Index(FAR), FAR + SPAN
    for _ in range(20):
        found_by(floors, index, last)
    assert floors.first[0] == FAR
    index.ready.add(64)
    found = [found_by(floors, index, last, answers=3)[0] for _ in range(20)]
    assert 64 in found[-1]
    assert floors.first[0] == 64


def test_a_long_walk_needs_few_queries() -> None:
    index = Index(FAR)
    assert found_by(Floors(), index, FAR + SPAN) == ([FAR], True)
    assert index.spans[:6] == [SPAN * 2**n for n in range(6)]
