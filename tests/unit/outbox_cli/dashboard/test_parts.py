"""The parts of the dashboard that need no database: search, tokens, drawing, vendored files."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from listeners.graph import Topic, build_baseline
from outbox_cli.dashboard.access.tokens import Tokens
from outbox_cli.dashboard.drawing import HEIGHT, WIDTH, draw
from outbox_cli.dashboard.facts.searching import InvalidSearch, parse
from outbox_cli.dashboard.guard import Guard
from outbox_cli.dashboard.rendering import said
from outbox_cli.dashboard.routes.entrance import own_path
from relay.admin.messages.editing import merged
from relay.admin.messages.redaction import Redaction
from relay.admin.timeline.series import quantile

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
VENDOR = Path(__file__).parents[4] / "outbox_cli" / "dashboard" / "static" / "vendor"

# As `npm pack` brings them: uplot 1.6.32 (tarball sha512-KIMVnG68zvu5…), htmx.org 2.0.11 (sha512-Thx/WtpeOQqS…).
PUBLISHED = {
    "uPlot.iife.min.js": "jfm4wrxgq73ZXFzyYPRmgfQd7yYjtsH57SzfgjpieX4rgnfHAMAZJgQ1YLTsc6HOX+1tnGjnkFuerbc8oI2mJg==",
    "uPlot.min.css": "xXYYvGoPqOjhMwkpkxWTDv7HvlyrkyEqzc4USFr/ZtBYC7eklE3DNBDccqiMj2VzRKSffZzeqVRckdYzJx9qfQ==",
    "htmx.min.js": "YdHy6FzjD4qoyI/yWGIbsKnJHe98r96np9XeYp3ovFL+0sNP/NbDrYlSLDr5a6Ndi5sRi9GgJj+suE7yLeUMNQ==",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_vendored_file_is_what_its_project_published(name: str) -> None:
    found = base64.b64encode(hashlib.sha512((VENDOR / name).read_bytes()).digest()).decode()
    assert found == PUBLISHED[name]


def test_no_other_vendored_file_is_served() -> None:
    assert {path.name for path in VENDOR.iterdir() if path.suffix != ".LICENSE"} == set(PUBLISHED)


def test_a_search_speaks_the_filters_of_the_command_line() -> None:
    found = parse('type:order.* key:"c 1" state:dead destination:api since:2h', AT)
    choice = found.choice
    assert (choice.type_, choice.key, found.state, choice.destination) == ("order.*", "c 1", "dead", "api")
    assert choice.since == AT - timedelta(hours=2)


def test_a_word_alone_is_an_id_or_a_type() -> None:
    id_ = "0197c0de-0000-7000-8000-000000000000"
    assert parse(id_.upper(), AT).id == id_
    assert parse("order.placed", AT).choice.type_ == "order.placed"


@pytest.mark.parametrize(
    "text", ["colour:red", "type:", "state:lost", "id:7", "since:soon", 'key:"open', "key:a key:b"]
)
def test_a_search_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidSearch):
        parse(text, AT)


def test_a_token_opens_its_role_only() -> None:
    tokens = Tokens(operator="o" * 20, viewer="v" * 20)
    assert (tokens.role_of("o" * 20), tokens.role_of("v" * 20), tokens.role_of("")) == ("operator", "viewer", None)
    assert Tokens().role_of("") is None


@pytest.mark.parametrize(
    ("to", "leads"),
    [("/dead?cause=1", "/dead?cause=1"), ("//evil.example", "/"), ("https://evil.example", "/"), ("/\\evil", "/")],
)
def test_a_login_leads_to_a_page_of_ours(to: str, leads: str) -> None:
    assert own_path(to) == leads


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost:9811", True),
        ("127.0.0.1:9811", True),
        ("[::1]:9811", True),
        ("outbox.example:443", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_only_our_names_and_addresses_are_answered(host: str, is_ours: bool) -> None:
    assert Guard(None, ["localhost", "outbox.example"])._is_ours(host) is is_ours  # type: ignore[arg-type]


def test_commands_in_a_sentence_are_set_as_such_and_nothing_else_is_markup() -> None:
    assert said("run `outbox relay` <b>") == "run <code>outbox relay</code> &lt;b&gt;"


def test_a_merge_patch_sets_and_removes() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": None}, "e": 4}) == {"a": {"c": 2}, "d": 3, "e": 4}


def test_a_mask_that_is_left_alone_stands_for_what_it_hides() -> None:
    redaction = Redaction(["data.customers.email"])
    data = {"customers": [{"email": "a@example.com", "n": 1}, {"email": "b@example.com", "n": 2}]}
    masked = redaction.data(data)
    assert [each["email"] for each in masked["customers"]] == ["***", "***"]
    masked["customers"][1]["n"] = 3
    assert redaction.restored(masked, data)["customers"][1] == {"email": "b@example.com", "n": 3}


def test_quantiles_come_from_the_classes_that_latencies_were_counted_in() -> None:
    counts = [0.0, 50, 0, 0, 50]
    assert quantile(counts, 0.5) == pytest.approx(0.01)
    assert 0.05 < (quantile(counts, 0.99) or 0) <= 0.1
    assert quantile([0.0] * 5, 0.5) is None


@pytest.mark.parametrize("count", [0, 1, 2, 10, 100])
def test_a_graph_of_any_size_is_drawn_on_the_canvas_the_same_each_time(count: int) -> None:
    topics = [
        Topic(topic=f"topic {n}", weight=1 / (n + 1), sentences=frozenset({n % 7, n % 13, n % 29}))
        for n in range(count)
    ]
    graph = build_baseline(topics).as_json()
    drawing = draw(graph)
    assert len(drawing.nodes) == count
    assert all(0 <= node.x <= WIDTH and 0 <= node.y <= HEIGHT for node in drawing.nodes)
    assert drawing == draw(graph)
    assert not count or any(node.label.level == 0 for node in drawing.nodes)
    assert sum(edge.strong for edge in drawing.edges) <= 4 * max(count, 1)
