"""One line per event, no forged ones, and no secrets."""

import io
import json
import logging
import warnings
from typing import Any

import pytest
import structlog
from opentelemetry import trace

from relay.observe.logging import configure, one_line, plain_trace, redacted

SECRET = "correct-horse"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def configured(stream: io.StringIO | None = None, **options: Any) -> io.StringIO:
    stream = stream or io.StringIO()
    configure(stream=stream, secrets=[SECRET], **options)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_without_a_terminal_and_text_on_one() -> None:
    pipe, terminal = configured(), Terminal()
    structlog.get_logger("relay").info("started", shards=3)
    (line,) = lines(pipe)
    assert (line["event"], line["shards"], line["level"], line["logger"]) == ("started", 3, "info", "relay")
    assert line["timestamp"].endswith("Z")
    configured(terminal)
    structlog.get_logger("relay").info("started", shards=3)
    assert "started" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_a_line_names_the_span_that_is_current() -> None:
    context = trace.SpanContext(trace_id=10, span_id=11, is_remote=False)
    stream = configured()
    with trace.use_span(trace.NonRecordingSpan(context)):
        structlog.get_logger("relay").info("within")
        logging.getLogger("app").warning("within, too")
    structlog.get_logger("relay").info("after")
    *within, after = lines(stream)
    assert {(each["trace_id"], each["span_id"]) for each in within} == {(f"{10:032x}", f"{11:016x}")}
    assert "trace_id" not in after


def test_a_password_in_the_query_of_a_url_is_masked_too() -> None:
    said = redacted("cannot reach postgresql:///app?host=/run/postgresql&password=s3cret&sslpassword=hu%20nter&user=a")
    assert said == "cannot reach postgresql:///app?host=/run/postgresql&password=***&sslpassword=***&user=a"


def test_text_has_no_colours_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal, pipe = configured(Terminal()), io.StringIO()
    structlog.get_logger("relay").warning("slow", by_s=3)
    assert "\x1b" not in terminal.getvalue()
    monkeypatch.delenv("NO_COLOR")
    configured(pipe, log_format="text")
    structlog.get_logger("relay").warning("slow", by_s=3)
    assert "\x1b" not in pipe.getvalue()


def test_the_standard_librarys_loggers_take_the_same_path() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        stream = configured()
        logging.getLogger("listeners.baseline").info("Extraction completed for content: %s", "c-1")
        warnings.warn("old", stacklevel=1)
    first, second = lines(stream)
    assert first["event"] == "Extraction completed for content: c-1"
    assert first["logger"] == "listeners.baseline"
    assert second["logger"] == "py.warnings"


def test_the_level_is_respected_and_libraries_are_quieter() -> None:
    stream = configured(level="info")
    structlog.get_logger("relay").debug("no")
    logging.getLogger("relay").debug("no")
    logging.getLogger("apscheduler.scheduler").info("no")
    assert stream.getvalue() == ""
    configured(stream, level="debug")
    logging.getLogger("apscheduler.scheduler").debug("yes")
    assert len(lines(stream)) == 1


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_secret_is_written_wherever_it_hides(log_format: str) -> None:
    stream = configured(log_format=log_format)
    log = structlog.get_logger("relay")
    log.info(f"event {SECRET}", value=SECRET, nested={"list": [SECRET], SECRET: 1}, object=ValueError(SECRET))
    logging.getLogger("outbox").warning("argument %s", SECRET)
    try:
        raise RuntimeError(f"failed with {SECRET}")
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("outbox").exception("failed")
    log.error("lost", url="postgresql://app:unknown-password@db/app and amqp://a:other-one@b/")
    assert SECRET not in stream.getvalue()
    assert "unknown-password" not in stream.getvalue()
    assert "other-one" not in stream.getvalue()
    assert "***" in stream.getvalue()


FORGED = 'c-1\n{"event": "forged", "level": "info"}\r\x1b[31mred\u2028next\u202eevil'


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_value_forges_a_line(log_format: str) -> None:
    stream = configured(log_format=log_format)
    structlog.get_logger("relay").info(f"taken {FORGED}", content=FORGED, nested=[{"key": FORGED}])
    logging.getLogger("listeners").info("Extraction completed for content: %s", FORGED)
    text = stream.getvalue()
    assert text.count("\n") == 2
    for control in "\r\x1b\u2028\u202e":
        assert control not in text


def test_a_forged_line_in_a_traceback_cannot_pass_for_an_event() -> None:
    stream = configured(log_format="text")
    try:
        raise ValueError("bad\n2026-01-01T00:00:00Z [info] forged\x1b[0m")
    except ValueError:
        structlog.get_logger("relay").exception("failed")
    first, *trace = stream.getvalue().splitlines()
    assert "failed" in first
    assert trace
    assert all(line.startswith("    ") for line in trace)
    assert "\x1b" not in stream.getvalue()


def test_a_traceback_is_part_of_its_json_line() -> None:
    stream = configured()
    try:
        raise ValueError("bad")
    except ValueError:
        structlog.get_logger("relay").exception("failed")
    (line,) = lines(stream)
    assert line["exception"].endswith("ValueError: bad")


def test_passwords_in_urls_are_masked_without_being_known() -> None:
    assert (
        redacted("see postgresql+psycopg://app:p%40ss@db:5432/x?y=1")
        == "see postgresql+psycopg://app:***@db:5432/x?y=1"
    )
    assert redacted("amqp://:pw@host/") == "amqp://:***@host/"
    assert redacted("http://host:80/path") == "http://host:80/path"


def test_several_urls_in_a_row_are_all_masked() -> None:
    assert redacted("a://b:c@d,e+f://g:h@i c:d@e 1j://:k@") == "a://b:***@d,e+f://g:***@i c:d@e 1j://:***@"
    assert redacted("a://b: c@d a://b:@c\ta://b:c://d:e@f") == "a://b: c@d a://b:@c\ta://b:***@f"


@pytest.mark.parametrize("text", ["x", "a://", "a://b:", "@a://b:", "a://b:c@", "?password=", "a b:"])
def test_a_monotonous_text_takes_no_more_time_than_its_length(text: str) -> None:
    """An error may repeat the data of a message: 1 MB in one word, say."""
    long = text * (1_000_000 // len(text))
    assert redacted(f"postgresql://app:{SECRET}@db {long}").startswith("postgresql://app:***@db")


def test_the_example_in_our_messages_is_no_password() -> None:
    said = "write postgresql://user:password@host/database or sqlite:///path/to/outbox.db"
    assert redacted(said) == said
    assert redacted("postgresql://user:password1@host/database") == "postgresql://user:***@host/database"


def test_readable_text_is_left_as_it_is() -> None:
    assert one_line("Überschrift – 見出し 🎉") == "Überschrift – 見出し 🎉"


def test_a_traceback_shows_no_variables_and_no_password_also_where_logging_was_never_configured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails() -> None:
        local = SECRET
        raise LookupError("redis://:hunter2@cache/0", len(local))

    structlog.reset_defaults()
    try:
        fails()
    except LookupError as error:
        structlog.get_logger("relay").warning("listener_raised", exception=plain_trace(error))
    said = capsys.readouterr().out
    assert "in fails" in said
    assert "LookupError: ('redis://:***@cache/0', 13)" in said
    assert SECRET not in said
    assert len(said.splitlines()) < 12


def test_a_librarys_report_of_a_failed_connection_is_written_only_while_debugging_and_its_filters_see_it() -> None:
    seen: list[str] = []

    def see(record: logging.LogRecord) -> bool:
        seen.append(record.getMessage())
        return True

    library = logging.getLogger("aiokafka")
    library.addFilter(see)
    try:
        for level, count in (("info", 0), ("debug", 1)):
            stream = configured(level=level)
            library.error("Unable connect to %s", "broker:9092")
            assert len(lines(stream)) == count
    finally:
        library.removeFilter(see)
    assert seen == ["Unable connect to broker:9092"] * 2
