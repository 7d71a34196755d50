"""What is logged of a batch is a line for each cause, not for each message."""

from structlog.testing import capture_logs

from relay.databases.store.records import Ruled
from relay.decide.verdict import State
from relay.owner.reports import report_dead, report_not_finished


def dead(message_id: str, destination: str, reason: str, state: State = State.DEAD) -> Ruled:
    return Ruled(message_id, destination, state, generation=0, attempts=1, delay_s=0.0, reason=reason, log=None)


def test_messages_that_cannot_be_finished_are_one_line_for_each_cause():
    with capture_logs() as lines:
        report_not_finished([("1", "row 7 is refused"), ("2", "no room"), ("3", "row 8 is refused")])
    assert [(line["event"], line["count"], line["message_id"], line["reason"]) for line in lines] == [
        ("not_finished", 2, "1", "row 7 is refused"),
        ("not_finished", 1, "2", "no room"),
    ]


def test_dead_letters_are_one_line_for_each_destination_and_cause():
    with capture_logs() as lines:
        report_dead(
            [
                dead("1", "a", "HTTP 422: 7"),
                dead("2", "b", "HTTP 422: 7"),
                dead("3", "a", "HTTP 422: 8"),
                dead("4", "a", "HTTP 422: 9", State.RETRY),
            ]
        )
    assert [(line["destination"], line["count"], line["message_id"]) for line in lines] == [
        ("a", 2, "1"),
        ("b", 1, "2"),
    ]
