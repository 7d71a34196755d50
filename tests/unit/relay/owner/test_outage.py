"""An outage of the database is logged when it begins, and not again at every attempt."""

import psycopg
from structlog.testing import capture_logs

from relay.databases.store.contract import Damaged, Full, Lost, Refused
from relay.decide.outcome import fingerprint
from relay.owner.outage import Outage


def test_an_address_in_a_reason_makes_it_no_other_cause() -> None:
    first, second = (f"got <Connection.Close object at {at}>" for at in ("0x7f22de15f650", "0x7f22de15f9b0"))
    assert fingerprint(first) == fingerprint(second)


def test_what_breaks_a_session_again_and_again_is_said_once_though_its_words_have_the_time_of_day() -> None:
    outage = Outage()
    with capture_logs() as said:
        for second in range(5):
            error = psycopg.errors.CheckViolation(f'no partition found for row: (delivered_at) = ("12:00:0{second}")')
            outage.add(error, owned=64)
        outage.add(psycopg.errors.UndefinedTable("there is no outbox_message"), owned=64)
        outage.add(Lost("the server closed the connection"), owned=64)
        outage.add(Lost("the server is starting up"), owned=0)
    assert [each["event"] for each in said] == ["session_broke", "session_broke", "database_lost"]
    assert outage.reason == "the server is starting up"


def test_an_outage_that_comes_back_after_it_was_over_is_said_again() -> None:
    outage = Outage()
    with capture_logs() as said:
        for _ in range(2):
            outage.add(Lost("the server closed the connection"), owned=64)
            outage.end()
    assert [each["event"] for each in said] == ["database_lost", "database_back"] * 2


def test_a_full_disk_and_a_damaged_file_during_an_outage_are_each_said_once() -> None:
    outage = Outage()
    with capture_logs() as said:
        for error in [Lost("it is locked"), Full("it is full"), Damaged("it is malformed")] * 2:
            outage.add(error, owned=64)
    assert [each["event"] for each in said] == ["database_lost", "database_full", "database_damaged"]


def test_a_refusal_during_an_outage_is_said_and_a_second_cause_of_it_too() -> None:
    outage = Outage()
    with capture_logs() as said:
        for reason in ("no such role", "no such role", "no such database"):
            outage.add(Lost("the server closed the connection"), owned=64)
            outage.add(Refused(reason), owned=0)
    assert [each["reason"] for each in said] == ["the server closed the connection", "no such role", "no such database"]
