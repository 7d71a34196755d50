from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outbox import EmitError, Event, InvalidType, UnknownEvent
from outbox.checks.payload import to_payload
from outbox.event import event_class


class PageRead(Event, type="page.read"):
    page_number: int
    reader_name: str = "Ada"


def test_field_names_are_camel_case_on_the_wire():
    assert PageRead(page_number=7).to_data() == {"pageNumber": 7, "readerName": "Ada"}


def test_both_spellings_are_taken_in_python():
    assert PageRead(page_number=7) == PageRead(pageNumber=7)


def test_a_field_may_have_an_alias_of_its_own():
    class Renamed(Event, type="page.renamed"):
        page_number: int = Field(alias="no")

    assert Renamed(no=7).to_data() == {"no": 7}


def test_a_class_may_keep_its_own_names():
    class Plain(Event, type="page.plain"):
        model_config = ConfigDict(alias_generator=None)
        page_number: int

    assert Plain(page_number=7).to_data() == {"page_number": 7}


def test_a_config_keyword_of_pydantic_still_works_beside_the_type():
    class Strict(Event, type="page.strict", extra="forbid"):
        page_number: int

    with pytest.raises(ValidationError):
        Strict(page_number=7, other=1)


def test_an_event_may_have_a_field_named_type():
    class Typed(Event, type="page.typed"):
        type: str

    assert Typed(type="x").to_data() == {"type": "x"}
    assert Typed.__event_type__ == "page.typed"


def test_a_nested_event_is_camel_case_too_and_a_plain_model_keeps_its_names():
    class Part(Event):
        part_name: str

    class Model(BaseModel):
        model_name: str

    class Whole(Event, type="page.whole"):
        the_part: Part
        the_model: Model

    whole = Whole(the_part=Part(part_name="p"), the_model=Model(model_name="m"))
    assert whole.to_data() == {"thePart": {"partName": "p"}, "theModel": {"model_name": "m"}}


def test_a_base_class_needs_no_type_and_a_subclass_inherits_one():
    class Base(Event):
        content_id: str

    class Typed(Base, type="page.inherited"):
        pass

    class Special(Typed):
        extra: int = 0

    assert Base.__event_type__ is None
    assert Typed.__event_type__ == Special.__event_type__ == "page.inherited"
    assert event_class("page.inherited") is Typed


@pytest.mark.parametrize("type_", ["x", "extraction.completed", "A-1_b.c", "9.lives", "a" * 255])
def test_words_separated_by_dots_are_a_type(type_):
    assert type("Fine", (Event,), {}, type=type_).__event_type__ == type_


@pytest.mark.parametrize(
    "type_", ["", " ", "a b", ".a", "a.", "a..b", "a\n", "a/b", "é", "-a", "a.*", "#", "a" * 256, "\0", "\ud800", 7]
)
def test_a_malformed_type_is_refused_where_the_class_is_defined(type_):
    with pytest.raises(InvalidType, match=r"as in extraction\.completed"):
        type("Malformed", (Event,), {}, type=type_)


def test_an_undefined_type_has_no_class():
    with pytest.raises(UnknownEvent, match="import the module that defines it"):
        event_class("page.never")


def test_two_classes_of_one_type_have_to_be_told_apart_by_the_caller():
    class First(Event, type="page.twice"):
        pass

    class Second(Event, type="page.twice"):
        pass

    with pytest.raises(UnknownEvent, match=r"First.*Second"):
        event_class("page.twice")


def test_a_class_that_is_defined_again_replaces_itself():
    def define():
        class Again(Event, type="page.again"):
            pass

        return Again

    define()
    assert event_class("page.again") is not None
    again = define()
    assert event_class("page.again") is again


class Loose(Event, type="loose.happened"):
    anything: Any = None
    raw: bytes = b""


def test_data_that_json_cannot_hold_is_an_emit_error_in_an_event_too() -> None:
    with pytest.raises(EmitError, match="cannot be written as JSON"):
        Loose(raw=b"\xff").to_data()
    with pytest.raises(EmitError, match=r"data\.anything is nan"):
        to_payload(Loose(anything=float("nan")).to_data())


def test_an_iterator_in_an_event_is_written_with_all_its_items() -> None:
    assert to_payload(Loose(anything=(n for n in range(3))).to_data()) == '{"anything":[0,1,2],"raw":""}'
