"""PostgreSQL restarted under load: nothing is lost, nothing is sent again, and no operator is needed."""

from collections import Counter

import pytest
from support.fleet import shard_counts
from support.reckoning import unsettled
from support.recording import firsts_by_key
from support.waiting import eventually
from support.workload import Workload, under_load

SEED = 97


@pytest.mark.parametrize("mode", ["immediate", "fast"])
@pytest.mark.parametrize("relay_count", [1, 2])
def test_a_restart_under_load_loses_nothing_and_repeats_nothing(server, server_database, fleet, mode, relay_count):
    workload = Workload(server_database.engine, SEED)
    fleet.configure(server_database.url, work_s=0.005, beat_s=0.2, page_size=100)
    for _ in range(relay_count):
        fleet.start()
    share = 64 // relay_count
    eventually(lambda: list(shard_counts(server_database.url).values()) == [share] * relay_count)
    with under_load(workload):
        for _ in range(3):
            before = len(fleet.sends())
            eventually(lambda before=before: len(fleet.sends()) > before + 200, deadline_s=30)
            server.restart(mode)
        before = len(fleet.sends())
        eventually(lambda: len(fleet.sends()) > before + 200, deadline_s=30, what="they send again")
    committed = workload.committed()
    eventually(lambda: unsettled(server_database) == 0, deadline_s=30, what="everything is settled")
    sends = fleet.sends()
    assert {send.id for send in sends} == set(committed)
    assert [key for key, numbers in firsts_by_key(sends).items() if numbers != sorted(numbers)] == []
    repeated = {message_id: times for message_id, times in Counter(send.id for send in sends).items() if times > 1}
    print(f"{len(committed)} messages, {len(repeated)} sent more than once")
    assert not repeated
    assert all(relay.is_running for relay in fleet.relays)
