"""The command that appends a message to a stream."""

from collections import Counter

from outbox import Message
from outbox.checks.ids import new_id
from relay.destinations.redis.wire import PRODUCERS, Wire
from relay.destinations.sending.naming import namer


def message() -> Message:
    return Message(new_id(), "a.b", "outbox", None, None, "{}", "{}", "2026-01-01 10:00:00+00")


def test_a_message_that_the_server_shall_know_again_carries_a_producer_and_its_id() -> None:
    sent = message()
    command = Wire(namer("{type}"), None, "us").command(sent, deduplicated=True)
    assert (command[:3], command[4:6]) == (["XADD", "a.b", "IDMP"], [sent.id, "*"])


def test_ids_are_spread_over_producers_so_that_the_server_remembers_more_than_a_hundred() -> None:
    wire = Wire(namer("all"), None, "us")
    sent = [message() for _ in range(20 * PRODUCERS)]
    producers = [wire.command(each, deduplicated=True)[3] for each in sent]
    assert len(set(producers)) == PRODUCERS
    assert max(Counter(producers).values()) < 100
    assert producers == [wire.command(each, deduplicated=True)[3] for each in sent], "a message changed its producer"


def test_a_stream_is_trimmed_about_to_its_length_only_when_it_has_one() -> None:
    command = Wire(namer("all"), 7, "us").command(message(), deduplicated=False)
    assert command[:6] == ["XADD", "all", "MAXLEN", "~", 7, "*"]
    assert "MAXLEN" not in Wire(namer("all"), None, "us").command(message(), deduplicated=False)
