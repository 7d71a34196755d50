"""What a receiver repeats of a secret is masked, in any spelling."""

import html
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.destinations.http.echo import PIECE, Echo

SECRET = "aB3&dE<f'9+h/I-jK_m\"N0p#qR5tU7vW8x=Z"
ECHO = Echo([SECRET])

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in JSON": json.dumps,
    "in HTML": html.escape,
    "in HTML, all of it": lambda secret: "".join(f"&#{ord(letter)};" for letter in secret),
    "in HTML, in hexadecimal": lambda secret: "".join(f"&#x{ord(letter):x};" for letter in secret),
    "in a URL": lambda secret: quote(secret, safe=""),
    "in a URL, all of it": lambda secret: "".join(f"%{ord(letter):02X}" for letter in secret),
    "as a literal": lambda secret: "".join(f"\\u{ord(letter):04x}" for letter in secret),
    "as octets": lambda secret: "".join(f"\\x{ord(letter):02x}" for letter in secret),
    "in base64": lambda secret: b64encode(secret.encode()).decode(),
    "in base64 behind a letter": lambda secret: b64encode(b"u" + secret.encode()).decode(),
    "in base64 behind two": lambda secret: b64encode(b"u:" + secret.encode() + b":v").decode(),
    "in base64 for URLs": lambda secret: urlsafe_b64encode(secret.encode()).decode(),
    "in base64, wrapped": lambda secret: "\n".join(_cut(b64encode(secret.encode()).decode(), 10)),
    "in hexadecimal": lambda secret: secret.encode().hex(),
    "in hexadecimal, with colons": lambda secret: secret.encode().hex(":").upper(),
    "in capital letters": str.upper,
    "over two lines": lambda secret: f"{secret[:18]}\r\n\t{secret[18:]}",
    "letter by letter": lambda secret: " ".join(secret),
    "in an array": lambda secret: json.dumps(_cut(secret, 3)),
    "in two places": lambda secret: f"it begins with {secret[:18]} and ends with {secret[18:]}",
    "its beginning": lambda secret: secret[:20],
    "its end": lambda secret: secret[-20:],
}


def _cut(text: str, length: int) -> list[str]:
    return [text[at : at + length] for at in range(0, len(text), length)]


def letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_at_most_a_few_letters_of_a_repeated_secret_are_shown(spelling: str) -> None:
    shown = ECHO.masked(f"bad secret: {SPELLINGS[spelling](SECRET)}, who are you?")
    assert "***" in shown
    for known in (SECRET, SECRET.encode().hex(), b64encode(SECRET.encode()).decode()):
        whole = letters(known)
        assert not any(whole[n : n + PIECE] in letters(shown) for n in range(len(whole) - PIECE + 1))


@given(st.text(max_size=300))
def test_what_repeats_no_secret_is_shown_as_it_is(text: str) -> None:
    secret = "0123456789abcdef" * 3
    assume(not any(secret[n : n + PIECE] in letters(text) for n in range(16)))
    assert Echo([secret]).masked(text) == text


def test_what_stands_around_a_secret_is_shown() -> None:
    assert ECHO.masked(f'{{"error": "bad secret {SECRET}", "hint": "rotate it"}}') == (
        '{"error": "bad secret ***", "hint": "rotate it"}'
    )
    assert ECHO.masked(f"<b>{html.escape(SECRET[:20])}</b> is wrong").endswith("</b> is wrong")


def test_a_short_secret_is_masked_as_a_whole() -> None:
    assert Echo(["s3cr"]).masked("not s3cr but s3c") == "not *** but s3c"
