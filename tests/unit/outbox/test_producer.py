"""What Python itself says of `emit`: its signature in help(), and the name in the error about a misspelt option."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest

from outbox import Draft, emit
from outbox.draft import Options


def test_the_signature_of_emit_names_each_option_with_the_default_of_a_draft() -> None:
    named = {name: each for name, each in inspect.signature(emit).parameters.items() if each.kind is each.KEYWORD_ONLY}
    defaults = {each.name: each.default for each in fields(Draft)}
    assert named.keys() == Options.__annotations__.keys()
    assert {name: each.default for name, each in named.items()} == {name: defaults[name] for name in named}


def test_an_option_that_does_not_exist_is_told_of_emit() -> None:
    misspelt: dict[str, Any] = {"orderingkey": "c-1"}
    with pytest.raises(TypeError, match=r"emit\(\) got an unexpected keyword argument 'orderingkey'"):
        emit(None, "extraction.completed", {}, **misspelt)  # type: ignore[call-overload]
