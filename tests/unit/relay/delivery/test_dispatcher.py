"""What the event loop accepts of the pages that the owning thread has read."""

from relay.databases.store.rows import Page
from relay.delivery.assembly import assemble
from relay.delivery.dispatcher import Dispatcher
from relay.observe.metrics import Metrics
from relay.seam import Lease, ToOwner
from relay.seam.supervision import Supervisor


def test_a_late_page_of_a_lost_session_is_not_counted_for_the_next_session() -> None:
    """Counted for the next, it used to permit more pages than there is room for, until that session ended."""
    dispatcher = without_destinations(ToOwner(lambda: None, window=10), Metrics())
    dispatcher.begin_session(1)
    dispatcher.accept(Page(), 1)
    assert (dispatcher.pages_accepted(1), dispatcher.pages_accepted(2)) == (1, 0)
    dispatcher.begin_session(2)
    dispatcher.accept(Page(), 1)
    assert (dispatcher.pages_accepted(1), dispatcher.pages_accepted(2)) == (0, 0)
    dispatcher.accept(Page(), 2)
    assert dispatcher.pages_accepted(2) == 1


def test_the_latency_of_an_unwanted_message_is_not_measured() -> None:
    metrics, heard = Metrics(), ToOwner(lambda: None, window=10)
    dispatcher = without_destinations(heard, metrics)
    dispatcher.begin_session(1)
    dispatcher.accept(Page(messages=[row("m-1")]), 1)
    assert [entry.id for entry in heard.unrouted] == ["m-1"]
    dispatcher.forget(list(heard.unrouted))
    assert b"outbox_latency_seconds_count" not in metrics.text()


def without_destinations(heard: ToOwner, metrics: Metrics) -> Dispatcher:
    side = assemble(
        [],
        {},
        owner=heard,
        lease=Lease(15),
        window=10,
        metrics=metrics,
        supervisor=Supervisor(print),
        clock=lambda: 0.0,
    )
    return side.dispatcher


def row(id_: str) -> tuple[object, ...]:
    return (id_, 1, 0, 0, "page.read", "s", None, None, "{}", "{}", "2026-01-01 00:00:00+00", None, None, None)
