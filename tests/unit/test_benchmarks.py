"""The benchmark suite reports what is missed or missing, and its lines can be run one at a time."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks.__main__ import _merge
from benchmarks.backlog import COUNTED, UNCOUNTED
from benchmarks.isolation import ALONE, BESIDE
from benchmarks.lines import LINES
from benchmarks.report import BEGIN, END, put_into, write
from benchmarks.results import Result, saved
from benchmarks.rivals import RIVALS, Environment, Missing


def _result(rate: float) -> Result:
    result = Result(11, "SQLite", {"rounds": 1})
    result.add("drain", rate)
    return result


def _with_curve(rate: float) -> Result:
    result = _result(rate)
    result.series, result.axes = {"RSS": [(0.0, 1.5), (1.0, 1.5)]}, ("s", "MiB")
    return result


def test_every_line_of_the_table_is_there() -> None:
    assert list(LINES) == list(range(1, 15))


@pytest.mark.parametrize(("rate", "verdict"), [(19_999, "**missed**"), (20_000, "met")])
def test_a_missed_target_is_shown_as_missed(tmp_path: Path, rate: float, verdict: str) -> None:
    result = _result(rate)
    LINES[11].judge(result)
    assert f"| ≥ 20,000 messages/s | {verdict} |" in write([result], tmp_path)


@pytest.mark.parametrize(("p99_ms", "verdict"), [(11.1, "**missed**"), (11.0, "met")])
def test_a_neighbour_that_hangs_may_cost_a_tenth(tmp_path: Path, p99_ms: float, verdict: str) -> None:
    result = Result(12, "Beside a destination that hangs", {"rounds": 1})
    for name, each_ms in ((ALONE, 10.0), (BESIDE, p99_ms)):
        result.add(f"{name}: p99", each_ms, "ms")
    LINES[12].judge(result)
    assert f"| ≤ 1.1 × | {verdict} |" in write([result], tmp_path)


@pytest.mark.parametrize(("rate", "verdict"), [(9_690, "**missed**"), (9_700, "met")])
def test_metrics_may_cost_three_per_cent(tmp_path: Path, rate: float, verdict: str) -> None:
    result = Result(14, "What metrics cost a drain", {"rounds": 1})
    result.add(COUNTED, rate)
    result.add(UNCOUNTED, 10_000)
    LINES[14].judge(result)
    assert f"| ≥ 0.97 × | {verdict} |" in write([result], tmp_path)


def test_a_line_that_was_kept_is_read_back_as_it_was(tmp_path: Path) -> None:
    result = _with_curve(30_000)
    LINES[11].judge(result)
    result.save(tmp_path)
    assert saved(tmp_path, 11) == result
    assert saved(tmp_path, 1) is None


def test_rounds_that_are_added_stand_beside_those_from_before() -> None:
    result = _result(30_000)
    _merge(result, _result(10_000))
    assert result.rounds["drain"] == [10_000, 30_000]
    assert result.ran["rounds"] == 2


def test_a_plot_is_an_image(tmp_path: Path) -> None:
    write([_with_curve(30_000)], tmp_path)
    assert ElementTree.parse(tmp_path / "line-11.svg").getroot().tag.endswith("svg")


def test_two_figures_share_a_row_and_a_few_have_no_plot(tmp_path: Path) -> None:
    result = _result(30_000)
    result.add("drain", 20_000)
    result.add("drain: RSS", 100, "MiB")
    text = write([result], tmp_path)
    assert "| drain | 25,000 messages/s (20,000 – 30,000) | drain: RSS | 100 MiB |" in text
    assert not list(tmp_path.glob("*.svg"))


def test_the_report_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    put_into(document, write([_with_curve(30_000)], tmp_path / "results"), tmp_path / "results")
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "### 11. SQLite" in text
    assert (tmp_path / "benchmarks" / "line-11.svg").exists()


def test_a_rival_that_cannot_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    node = next(rival for rival in RIVALS if rival.runs_on_node)
    with pytest.raises(Missing, match="node and npm"):
        Environment(tmp_path).install(node)


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.package)
def test_a_rival_is_filled_by_as_many_messages_as_it_is_told(rival: object) -> None:
    statement = rival.insert.format(count=7)  # type: ignore[attr-defined]
    assert "generate_series(1, 7)" in statement
    assert "{count}" not in statement
