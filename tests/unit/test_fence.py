"""A fence between a call and its commit."""

from __future__ import annotations

import pytest

from relay.destinations.listener.transaction.commit_gate import Fence, Overran


def test_what_overran_does_not_commit() -> None:
    fence = Fence(1.0)
    assert fence.close()
    with pytest.raises(Overran):
        fence.pass_through()


def test_what_is_committing_is_waited_for() -> None:
    fence = Fence(1.0)
    fence.pass_through()
    assert not fence.close()
