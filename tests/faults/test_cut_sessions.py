"""The owning session ended by the server at every point of its life: nothing is lost, and nothing is done twice."""

import random

import psycopg
import pytest
from sqlalchemy import make_url
from support.reckoning import BOTH, assert_everything_happened_once, prepared, unsettled
from support.waiting import eventually
from support.wire import Wire, url_through

SEED = 1_848
BEGINNING = 28  # about as many round trips as it takes to open a session
OWNING = "FROM pg_stat_activity WHERE application_name LIKE 'outbox relay%' AND datname = current_database()"


@pytest.mark.timeout(180)
def test_a_session_that_ends_before_any_of_its_statements_costs_nothing(postgres_database, fleet):
    """One session after the other, each ended before another of its statements, early ones and late ones in turn."""
    chance = random.Random(SEED)
    points = [n for _ in range(25) for n in (chance.randrange(1, BEGINNING), chance.randrange(BEGINNING, 250))]

    def cut(session: int, statement: int) -> None:
        if session <= len(points) and statement == points[session - 1]:
            end_owning_sessions(postgres_database.url)

    wire = Wire(make_url(postgres_database.url).port, before=cut)
    try:
        workload = prepared(postgres_database, SEED)
        fleet.configure(
            url_through(wire, postgres_database), destinations=BOTH, work_s=0.002, beat_s=0.1, page_size=20, window=40
        )
        fleet.start()

        def is_through() -> bool:
            if unsettled(postgres_database) < 100:
                workload.commit(20)
            return wire.owning_count > len(points)

        eventually(is_through, deadline_s=120, what=f"{len(points)} sessions have ended")
        eventually(lambda: unsettled(postgres_database) == 0, deadline_s=30, what="everything is settled")
        assert_everything_happened_once(postgres_database, fleet, workload)
    finally:
        wire.close()


def end_owning_sessions(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) {OWNING}")
        eventually(lambda: connection.execute(f"SELECT count(*) {OWNING}").fetchone() == (0,))
