"""What the event loop takes in of what the owning thread has read."""

from relay.delivery.dispatcher import Dispatcher
from relay.observe.metrics import Metrics
from relay.store.contract import Page


def test_a_page_of_a_lost_session_that_comes_late_is_none_of_the_next_ones() -> None:
    """Counted as one, it made room for more than there was, for as long as that session lasted."""
    dispatcher = Dispatcher([], {}, window=10, owns=lambda _: True, metrics=Metrics(), on_work=lambda: None)
    dispatcher.begin(1)
    dispatcher.accept(Page(), 1)
    assert (dispatcher.pages_accepted(1), dispatcher.pages_accepted(2)) == (1, 0)
    dispatcher.begin(2)
    dispatcher.accept(Page(), 1)
    assert (dispatcher.pages_accepted(1), dispatcher.pages_accepted(2)) == (0, 0)
    dispatcher.accept(Page(), 2)
    assert dispatcher.pages_accepted(2) == 1


def test_the_latency_of_an_unwanted_message_is_not_measured() -> None:
    metrics = Metrics()
    dispatcher = Dispatcher([], {}, window=10, owns=lambda _: True, metrics=metrics, on_work=lambda: None)
    dispatcher.begin(1)
    dispatcher.accept(Page(messages=[row("m-1")]), 1)
    assert [entry.id for entry in dispatcher.unrouted] == ["m-1"]
    dispatcher.forget(list(dispatcher.unrouted))
    assert b"outbox_latency_seconds_count 0.0" in metrics.text()


def row(id_: str) -> tuple[object, ...]:
    return (id_, 1, 0, 0, "page.read", "s", None, None, "{}", "{}", "2026-01-01 00:00:00+00", None, None, None)
