"""How a destination's health is put into words."""

from datetime import UTC, datetime
from typing import Any

import pytest

from relay.admin.status import DestinationStatus

SINCE, UNTIL = datetime(2026, 1, 1, 10, tzinfo=UTC), datetime(2026, 1, 1, 10, 0, 8, tzinfo=UTC)


def health(state: str, **facts: Any) -> str:
    return DestinationStatus("api", "http", state, **facts).health


@pytest.mark.parametrize(
    ("state", "paused_by", "note", "said"),
    [
        ("healthy", None, None, "healthy"),
        ("healthy", None, "7 % failing", "healthy, 7 % failing"),
        ("paused", "failure", None, "down since 2026-01-01 10:00:00Z, probing at 2026-01-01 10:00:08Z"),
        ("paused", "operator", None, "paused since 2026-01-01 10:00:00Z"),
        ("throttled", "failure", None, "throttled until 2026-01-01 10:00:08Z"),
        ("off", "failure", None, "switched off since 2026-01-01 10:00:00Z"),
        ("removed", None, None, "removed"),
    ],
)
def test_paused_is_said_only_of_what_an_operator_stopped(
    state: str, paused_by: str | None, note: str | None, said: str
) -> None:
    assert health(state, paused_by=paused_by, note=note, since=SINCE, until=UNTIL) == said


def test_a_limit_is_said_of_what_is_healthy() -> None:
    assert health("healthy", rate="50/s") == "healthy, at most 50/s"
    assert health("healthy", note="7 % failing", rate="50/s") == "healthy, 7 % failing, at most 50/s"
    assert health("paused", paused_by="operator", rate="50/s") == "paused"
