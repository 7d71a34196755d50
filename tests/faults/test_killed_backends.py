"""A process of PostgreSQL killed under load: all sessions end, the postmaster lives on, and nothing is sent again."""

import os
import signal
from collections import Counter

import psycopg
from support.fleet import Fleet, backend_of, shard_counts
from support.postgres import PostgresServer
from support.reckoning import unsettled
from support.waiting import eventually
from support.workload import Workload, under_load

SEED = 131
KILLS = 3


def kill_a_backend(server: PostgresServer) -> None:
    """Kill a backend as the kernel's memory killer would: not a relay's, but all sessions end with it."""
    with server.connect() as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)


def sessions_of_halves(url: str, fleet: Fleet, ended: set[int]) -> set[int]:
    """Wait until each of the two relays owns half of the shards in a new session; return the two sessions."""

    def found() -> set[int]:
        assert list(shard_counts(url).values()) == [32, 32]
        sessions = {backend_of(url, relay) for relay in fleet.relays}
        assert not sessions & ended
        return sessions

    may_be_away = (psycopg.OperationalError, StopIteration)  # the server or a relay
    return eventually(found, ignoring=may_be_away, what="each owns its half")


def test_a_killed_server_process_ends_the_sessions_of_two_relays_and_neither_takes_what_the_other_held(
    server, server_database, fleet
):
    workload = Workload(server_database.engine, SEED)
    fleet.configure(server_database.url, work_s=0.005, beat_s=0.2, page_size=100)
    for _ in range(2):
        fleet.start()
    postmaster = server.pid
    sessions = sessions_of_halves(server_database.url, fleet, set())
    with under_load(workload):
        for _ in range(KILLS):
            before = len(fleet.sends())
            eventually(lambda before=before: len(fleet.sends()) > before + 200, deadline_s=30)
            kill_a_backend(server)
            # Both of them: one relay alone could send enough before the other is back.
            sessions = sessions_of_halves(server_database.url, fleet, sessions)
        before = len(fleet.sends())
        eventually(lambda: len(fleet.sends()) > before + 200, deadline_s=30, what="they send again")
    assert server.pid == postmaster, "the postmaster lived on"
    committed = workload.committed()
    eventually(lambda: unsettled(server_database) == 0, deadline_s=30, what="everything is settled")
    times = Counter(send.id for send in fleet.sends())
    assert set(times) == set(committed)
    assert [message_id for message_id, count in times.items() if count > 1] == []
    assert {row.attempts for row in server_database.rows("SELECT attempts FROM outbox_history")} == {1}
    assert all(relay.output.count('"database_lost"') == KILLS for relay in fleet.relays)
