"""Our own HMAC against the standard library's; the signatures as a whole are checked by test_http_wire.py."""

from __future__ import annotations

import hmac

from hypothesis import example, given
from hypothesis import strategies as st

from relay.destinations.http.signing import Key


@given(st.binary(max_size=200), st.binary(max_size=200))
@example(b"k" * 64, b"as long as a block")
@example(b"k" * 65, b"longer than a block")
def test_a_digest_equals_the_standard_librarys_for_every_key_and_content(key: bytes, content: bytes) -> None:
    assert Key(key).digest(content) == hmac.digest(key, content, "sha256")


def test_a_key_can_be_used_again_and_again() -> None:
    key = Key(b"0123456789abcdef")
    assert [key.digest(b"one"), key.digest(b"two"), key.digest(b"one")] == [
        hmac.digest(b"0123456789abcdef", content, "sha256") for content in (b"one", b"two", b"one")
    ]
