"""Which shards a relay may take when its session begins."""

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from relay.databases.store.rows import Cursors
from relay.owner.shards import AFTER_RESTART_S, Shards

NOW = 100.0


def may_take_anything(held_before: Collection[int] | None, *, server_age_s: float, later_s: float = 0.0) -> bool:
    times = [NOW]
    session: Any = SimpleNamespace(server_age_s=lambda: server_age_s)
    made = Shards(session, Mock(), Cursors(), Mock(), generation=1, held_before=held_before, clock=lambda: times[-1])
    times.append(NOW + later_s)
    return made.may_take_anything


def test_a_new_relay_takes_shards_at_once_unless_the_server_has_just_started() -> None:
    assert may_take_anything(None, server_age_s=1000.0)
    assert not may_take_anything(None, server_age_s=1.0)


@pytest.mark.parametrize("held", [[1, 2], []], ids=["some", "none"])
def test_a_relay_that_lost_its_session_leaves_to_others_for_a_while_what_they_may_have_lost(held: list[int]) -> None:
    """A relay that had held no shard took at once those of a peer, and sent again what the peer had under way."""
    assert not may_take_anything(held, server_age_s=1000.0)
    assert may_take_anything(held, server_age_s=1000.0, later_s=AFTER_RESTART_S)
