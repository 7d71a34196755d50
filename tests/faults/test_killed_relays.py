"""Relays killed at any moment: nothing is lost or invented, order holds, and every effect is there once."""

import random

from support.reckoning import BOTH, assert_everything_happened_once, prepared, unsettled
from support.recording import firsts_by_key, of
from support.waiting import eventually
from support.workload import Workload

SEED = 20_260
KILLS = 20
MESSAGES = 2_000
# With so few attempts, a message that is charged for a crash that it did not cause may die.
IMPATIENT = {name: {**destination, "max_attempts": 3} for name, destination in BOTH.items()}


def test_twenty_kills_among_2000_messages_lose_nothing_repeat_no_effect_and_charge_no_message(postgres_database, fleet):
    chance = random.Random(SEED)
    workload = prepared(postgres_database, SEED)
    fleet.configure(postgres_database.url, destinations=IMPATIENT, work_s=0.002, beat_s=0.1, page_size=50, window=200)
    pair = [fleet.start(), fleet.start()]
    for _ in range(KILLS):
        before = len(fleet.sends())
        workload.commit(MESSAGES // KILLS)
        victim, moment = chance.randrange(2), before + chance.randrange(2 * MESSAGES // KILLS)
        eventually(lambda moment=moment: len(fleet.sends()) >= moment, deadline_s=60, what=f"{moment} sends")
        pair[victim].kill()
        pair[victim] = fleet.start()
    eventually(lambda: unsettled(postgres_database) == 0, deadline_s=60, what="everything is settled")
    assert len(workload.committed()) == MESSAGES
    assert_everything_happened_once(postgres_database, fleet, workload)


def test_what_a_killed_relay_had_parked_is_delivered_though_nothing_new_comes(database, fleet):
    two = {name: {"listener": f"support.recording:{name}"} for name in ("record", "record_too")}
    fleet.configure(database.url, destinations=two, beat_s=0.1)
    fleet.fail_path.touch()
    workload = Workload(database.engine, SEED)
    workload.commit(100)
    relay = fleet.start()
    held = "SELECT count(*) FROM outbox_message WHERE state = 'held'"
    eventually(lambda: database.scalar(held) > 80, deadline_s=30, what="what is not kept for probing is parked")
    relay.kill()
    fleet.fail_path.unlink()
    fleet.start()
    eventually(lambda: unsettled(database) == 0, deadline_s=30, what="everything is settled")
    assert {send.id for send in of("log", fleet.sends())} == set(workload.committed())


def test_what_waited_behind_a_message_in_a_killed_relays_memory_is_delivered_in_order(database, fleet):
    fleet.configure(database.url, beat_s=0.1, page_size=8, window=8)
    fleet.hold_path.touch()
    workload = Workload(database.engine, SEED, key_count=1, key_share=1.0)
    relay = fleet.start()
    workload.commit(50)
    blocked = "SELECT count(*) FROM outbox_delivery WHERE state = 'blocked'"
    eventually(lambda: database.scalar(blocked) == 43, deadline_s=30, what="all wait behind seven in memory")
    relay.kill()
    fleet.hold_path.unlink()
    fleet.start()
    eventually(lambda: unsettled(database) == 0, deadline_s=30, what="everything is settled")
    numbers = sorted(workload.committed().values())
    assert firsts_by_key(fleet.sends()) == {"k-0": numbers}


def test_on_sqlite_killed_relays_lose_nothing_repeat_no_effect_and_charge_no_message(sqlite_database, fleet):
    chance = random.Random(SEED)
    workload = prepared(sqlite_database, SEED)
    fleet.configure(sqlite_database.url, destinations=IMPATIENT, work_s=0.002, beat_s=0.1, page_size=50, window=200)
    relay = fleet.start()
    for _ in range(10):
        before = len(fleet.sends())
        workload.commit(60)
        moment = before + chance.randrange(60)
        eventually(lambda moment=moment: len(fleet.sends()) >= moment, deadline_s=60, what=f"{moment} sends")
        relay.kill()
        relay = fleet.start()
    eventually(lambda: unsettled(sqlite_database) == 0, deadline_s=60, what="everything is settled")
    assert_everything_happened_once(sqlite_database, fleet, workload)
