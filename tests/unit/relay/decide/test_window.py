"""The data of the messages that a relay holds fit into a bounded memory, and small messages have the whole window."""

from hypothesis import given
from hypothesis import strategies as st

from relay.decide.window import WINDOW_BYTES, Window

MIB = 1 << 20
MOST = 6000
pages = st.lists(st.tuples(st.integers(1, 1500), st.integers(1, MIB)), max_size=300)  # messages, and bytes of all


def read(window: Window, sizes: list[int], held: int) -> None:
    window.fit(iter(sizes), len(sizes), held)


@given(pages)
def test_what_is_held_is_bounded_however_large_the_messages_are(found: list[tuple[int, int]]) -> None:
    window, held, bytes_ = Window(MOST, least=2, page_bytes=MIB), 0, 0
    for count, total in found:
        count = min(count, window.size - held)
        if count <= 0:
            break
        read(window, [total // count] * count, held)
        held, bytes_ = held + count, bytes_ + total // count * count
    assert bytes_ <= 2 * WINDOW_BYTES + MIB


def test_the_window_is_as_large_as_it_may_be_while_messages_are_small() -> None:
    window = Window(MOST, least=2, page_bytes=MIB)
    for held in range(0, MOST, 50):
        read(window, [5_000] * 50, held)
        assert window.size == MOST


def test_it_shrinks_at_large_messages_and_grows_again_as_they_are_replaced() -> None:
    window = Window(MOST, least=2, page_bytes=MIB)
    read(window, [100_000] * 10, 0)
    assert window.size == WINDOW_BYTES // 100_000
    read(window, [200] * 1500, 600)
    read(window, [200] * 1500, 0)
    assert window.size == MOST


def test_each_destination_has_room_for_two_messages_of_any_size() -> None:
    window = Window(8, least=60, page_bytes=MIB)
    assert window.size == 60
    read(window, [WINDOW_BYTES], 0)
    assert window.size == 60
