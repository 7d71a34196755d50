"""A gate between a call and its commit."""

from __future__ import annotations

import pytest

from relay.destinations.listener.transaction.commit_gate import CommitGate, Overran


def test_what_overran_does_not_commit() -> None:
    gate = CommitGate(1.0)
    assert gate.close()
    with pytest.raises(Overran):
        gate.pass_through()


def test_what_is_committing_is_waited_for() -> None:
    gate = CommitGate(1.0)
    gate.pass_through()
    assert not gate.close()
