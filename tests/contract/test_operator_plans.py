"""An operator's query costs in proportion to its answer, with 25,000 messages waiting and 25,000 in the history.

This holds whether or not the tables were analysed: a table that has just filled up was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from support.databases import Database, PostgresDatabases
from support.plans import Plan, asked

from relay.admin import counts as counting
from relay.admin.access.queries import snapshot
from relay.admin.messages.cancel import cancel, cancellable
from relay.admin.messages.choice import Choice
from relay.admin.messages.dead import DeadFilter, causes, count_dead, dead_letters
from relay.admin.messages.detail import show_message
from relay.admin.messages.listing import list_messages
from relay.admin.messages.replay import Replay, look, replay
from relay.admin.status import status
from relay.databases.dialect import dialect_of

COUNT = 25_000
DEAD = COUNT // 50
DELIVERIES = COUNT // 2
LIMIT = 20

MESSAGES = """
INSERT INTO outbox_message (id, type, source, data, state, due_at, ordering_key)
SELECT outbox_uuid7(), 'type.' || n / 10 % 10, 'sql', '{}', (ARRAY['held', 'ready', 'held', 'unrouted', 'held',
       'scheduled', 'held', 'ready', 'held', 'ready'])[1 + n % 10], CASE WHEN n % 10 = 5 THEN now() END,
       CASE WHEN n % 4 = 0 THEN 'hot' END
FROM generate_series(1, :count) AS n
"""
HELD = """
INSERT INTO outbox_delivery (message_id, destination, shard, position, ordering_key, state, reason, fingerprint,
                             changed_at)
SELECT id, 'a', shard, position, ordering_key,
       CASE WHEN position % 50 = 0 THEN 'dead' WHEN ordering_key IS NULL THEN 'parked' ELSE 'blocked' END,
       'why', 'cause', now() - position * interval '1 second'
FROM outbox_message WHERE state = 'held'
"""
# Messages of two days, as if 50 a second were delivered until noon of yesterday and of today.
HISTORY = """
INSERT INTO outbox_history (id, delivered_at, position, type, source, data, headers, created_at, attempts, registered)
SELECT outbox_uuid7(), date_trunc('day', now(), 'UTC') - (n % 2) * interval '1 day' + n * interval '10 milliseconds',
       n, 'type.' || n / 10 % 10, 'sql', '{}', '{}', now(), 1, 1
FROM generate_series(1, :count) AS n
"""
GIVEN_UP = """
UPDATE outbox_history SET outcome = CASE WHEN position % 100 = 0 THEN 'discarded' ELSE 'cancelled' END,
    deliveries = jsonb_build_object('a', jsonb_build_object('state',
        CASE WHEN position % 100 = 0 THEN 'discarded' ELSE 'cancelled' END, 'attempts', 0))
WHERE position % 50 = 0
"""
MIDNIGHT = "SELECT date_trunc('day', now(), 'UTC')"


@pytest.fixture(scope="module", params=["never analysed", "analysed"])
def template(request: pytest.FixtureRequest, postgres_databases: PostgresDatabases) -> str:
    filled_by = {"never analysed": fill, "analysed": fill_and_analyse}[request.param]
    return postgres_databases.template(request.param, filled_by)


@pytest.fixture(scope="module")
def full(template: str, postgres_databases: PostgresDatabases) -> Iterator[Database]:
    """A database that the tests only read, because copies are large."""
    with postgres_databases.fresh(template) as database:
        yield database


@pytest.fixture
def copy_of_full(template: str, postgres_databases: PostgresDatabases) -> Iterator[Database]:
    """The same for a test that changes it."""
    with postgres_databases.fresh(template) as database:
        yield database


def fill_and_analyse(database: Database) -> None:
    fill(database)
    database.execute("ANALYZE")


def fill(database: Database) -> None:
    database.execute(
        "INSERT INTO outbox_destination (name, kind, events, generation) VALUES ('a', 'listener', '[\"*\"]', 1)"
    )
    database.execute("SELECT outbox_add_partition((now() AT TIME ZONE 'UTC')::date - 1)")
    for statement in (MESSAGES, HELD, HISTORY, GIVEN_UP):
        database.execute(statement, **({"count": COUNT} if ":count" in statement else {}))


def looked_at(plans: Iterable[Plan], table: str) -> int:
    return sum(plan.rows_looked_at_in(table) for plan in plans)


@pytest.mark.parametrize(
    ("state", "type_"),
    [
        (None, None), ("held", None), ("unrouted", None), ("parked", None), ("blocked", None), ("delivered", None),
        (None, "type.3"), ("delivered", "type.*"),
    ],
)  # fmt: skip
def test_a_list_looks_at_what_is_newest_and_no_further_than_it_must(
    full: Database, state: str | None, type_: str | None
) -> None:
    with asked(full.engine) as plans, snapshot(full.engine) as connection:
        found = list_messages(connection, Choice(type_=type_), state=state, limit=LIMIT)
    assert len(found) == LIMIT
    # one in ten is of that type, or unrouted, and each has at most two deliveries to look up
    # messages that are settled, but not in the history yet, are found in one pass over the deliveries
    once = DELIVERIES if state == "delivered" else 0
    assert looked_at(plans, "outbox_") <= 20 * LIMIT + once, plans


@pytest.mark.parametrize("state", ["cancelled", "discarded"])
def test_a_list_of_what_was_given_up_passes_over_what_is_not_settled_and_no_long_history(
    full: Database, state: str
) -> None:
    with asked(full.engine) as plans, snapshot(full.engine) as connection:
        found = list_messages(connection, state=state, limit=LIMIT)
    assert len(found) == LIMIT
    assert looked_at(plans, "outbox_history") <= 2 * LIMIT, plans
    assert looked_at(plans, "outbox_message") <= COUNT, plans


def test_what_can_be_cancelled_is_counted_in_a_pass_and_each_batch_looks_at_its_own(copy_of_full: Database) -> None:
    which = Choice(type_="type.3")
    with asked(copy_of_full.engine) as plans:
        with copy_of_full.engine.connect() as connection:
            count = sum(each.count for each in cancellable(connection, which))
        assert looked_at(plans, "outbox_message") <= COUNT, plans
        plans.clear()
        assert cancel(copy_of_full.engine, which) == count
    # held and unread ones: each is passed once, from the first id to the last, and its deliveries are looked up
    assert looked_at(plans, "outbox_message") <= 4.01 * COUNT, plans
    assert looked_at(plans, "outbox_delivery") <= DELIVERIES + 4 * count, plans


def test_a_message_is_shown_without_a_look_at_its_neighbours(full: Database) -> None:
    last_of_its_key = "SELECT message_id FROM outbox_delivery WHERE state = 'blocked' ORDER BY position DESC LIMIT 1"
    settled = "SELECT id FROM outbox_history LIMIT 1"
    with asked(full.engine) as plans, snapshot(full.engine) as connection:
        for query in (last_of_its_key, settled):
            message_id = connection.exec_driver_sql(query).scalar_one()
            plans.clear()
            assert show_message(connection, str(message_id)) is not None
            assert looked_at(plans, "outbox_") <= 10, plans


@pytest.mark.parametrize("which", [DeadFilter(), DeadFilter(destination="a"), DeadFilter(reason="why")])
def test_dead_letters_are_found_without_a_look_at_other_deliveries(full: Database, which: DeadFilter) -> None:
    with asked(full.engine) as plans, snapshot(full.engine) as connection:
        assert count_dead(connection, which) == DEAD
        assert [cause.count for cause in causes(connection, which)] == [DEAD]
        assert len(list(dead_letters(connection, which, limit=LIMIT))) == LIMIT
    assert all(plan.rows_looked_at_in("outbox_delivery") <= DEAD for plan in plans), plans
    assert looked_at(plans, "outbox_message") == LIMIT, plans


def test_the_causes_of_one_type_look_up_the_messages_of_the_latest_letters_only(full: Database) -> None:
    latest = DEAD // 4
    with asked(full.engine) as plans, snapshot(full.engine) as connection:
        dialect_of(connection).by_index(connection)
        found = causes(connection, DeadFilter(type_="type.*"), among=latest)
    assert [cause.count for cause in found] == [latest]
    assert looked_at(plans, "outbox_message") == latest, plans
    assert looked_at(plans, "outbox_delivery") <= 2 * DEAD, plans


def test_counting_among_the_latest_dead_letters_looks_up_no_others(full: Database) -> None:
    which = DeadFilter(type_="type.*")
    with asked(full.engine) as plans, snapshot(full.engine) as connection:
        dialect_of(connection).by_index(connection)
        assert count_dead(connection, which, among=LIMIT) == LIMIT
        assert len(list(dead_letters(connection, which, limit=LIMIT, among=LIMIT // 2))) == LIMIT // 2
    assert looked_at(plans, "outbox_message") <= 3 * LIMIT, plans


def test_the_status_passes_over_what_is_not_settled_a_few_times_and_counts_no_long_history(
    copy_of_full: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_of_full.execute("ANALYZE outbox_history")
    monkeypatch.setattr(counting, "COUNT_AT_MOST", COUNT // 2)
    with asked(copy_of_full.engine) as plans, snapshot(copy_of_full.engine) as connection:
        found = status(connection)
    assert (found.delivered_is_estimate, found.dead) == (True, DEAD)
    assert (found.discarded, found.cancelled) == (COUNT // 100, COUNT // 100)
    assert looked_at(plans, "outbox_history") <= COUNT // 50, plans
    assert looked_at(plans, "outbox_message") <= 2 * COUNT, plans
    assert looked_at(plans, "outbox_delivery") <= 4 * DELIVERIES, plans


def test_the_status_of_more_messages_than_it_may_count_is_estimated_from_a_sample(full: Database) -> None:
    with snapshot(full.engine) as connection:
        exact = status(connection)
    with asked(full.engine) as plans, snapshot(full.engine) as connection:
        found = status(connection, count_at_most=COUNT // 10)
    assert (exact.is_estimate, found.is_estimate) == (False, True)
    assert not [plan for plan in plans if plan.scanned_tables & {"outbox_message", "outbox_delivery"}], plans
    for name in ("waiting", "unrouted", "scheduled", "parked", "dead"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=0.25), name
    assert found.destinations["a"].waiting == pytest.approx(exact.destinations["a"].waiting, rel=0.25)
    assert found.destinations["a"].dead == pytest.approx(DEAD, rel=0.25)


def test_a_dry_run_of_a_replay_looks_at_the_days_it_is_asked_for(full: Database) -> None:
    midnight = full.scalar(MIDNIGHT)
    with asked(full.engine) as plans, snapshot(full.engine) as connection:
        found = look(connection, Replay("a", since=midnight))
    assert 0 < sum(each.count for each in found) <= COUNT // 2
    assert looked_at(plans, "outbox_history") <= COUNT // 2, plans


def test_each_page_of_a_replay_looks_up_its_own_messages(copy_of_full: Database) -> None:
    replayed = COUNT // 20
    with asked(copy_of_full.engine) as plans:
        assert replay(copy_of_full.engine, Replay("a", type_="type.3", until=copy_of_full.scalar(MIDNIGHT))) == replayed
    # one in twenty is of that type and of yesterday; the pages pass over the others once
    assert looked_at(plans, "outbox_history") <= COUNT + 4 * replayed, plans
    assert looked_at(plans, "outbox_message") <= 4 * replayed, plans
