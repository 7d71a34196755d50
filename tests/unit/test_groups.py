"""Tests that share a server, or a fixture that takes seconds, run in one process (`pytest_collection_modifyitems`)."""

import pytest


@pytest.mark.xdist_group("together")
def test_xdist_learns_the_groups(request: pytest.FixtureRequest) -> None:
    """Otherwise it distributes them as if they had none, and each process starts each server."""
    is_distributed_by_group = request.config.getoption("loadgroup", False)
    assert request.node.nodeid.endswith("@together") == is_distributed_by_group
