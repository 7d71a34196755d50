"""What is printed: JSON that is the data, and nothing that a terminal would obey."""

import json
import sys

import pytest

from outbox_cli.terminal.output import print_json, say

TRICKS = {
    "C1": "\x9b31m",
    "delete": "\x7f",
    "bidi": "‮txt.exe⁦",
    "zero width": "a​b﻿",
    "line": "a\u2028b\u0085c",
    "tag": "\U000e0041",
    "escape": "\x1b[31m\r\n",
}


@pytest.mark.parametrize("text", TRICKS.values(), ids=TRICKS.keys())
def test_json_holds_the_data_and_no_control_character(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    value = [{"subject": text, "kept": "Grüße, 世界 🙂"}]
    print_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == value
    assert all(char.isprintable() or char == "\n" for char in out)
    assert "Grüße, 世界 🙂" in out


def test_json_in_an_encoding_that_holds_less_is_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    from outbox_cli.terminal.output import as_json

    class Latin:
        encoding = "latin-1"

    monkeypatch.setattr(sys, "stdout", Latin())
    assert as_json("é\x9b") == '"\\u00e9\\u009b"'


@pytest.mark.parametrize("text", TRICKS.values(), ids=TRICKS.keys())
def test_a_message_holds_no_control_character_either(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"outbox: {text}\nsecond line")
    err = capsys.readouterr().err
    assert all(char.isprintable() or char == "\n" for char in err)
    assert err.endswith("\nsecond line\n")
