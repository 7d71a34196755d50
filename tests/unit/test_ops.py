"""The files for Prometheus and Grafana name metrics that exist, and each alert has its entry in the runbook."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from relay.observe import process
from relay.observe.metrics import Metrics

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
}
SEVERITIES = {"critical", "warning", "info"}
# Names on the overview page.
LAST_VALUES_OF_CHARTS = {"Emitted", "Delivered", "Latency p50", "Waiting"}
IN_NO_METRIC = {"In the history", "Findings of the doctor", "Actions of operators"}
PARTS = ("What it means", "How to see it", "What to do")


def families() -> dict[str, str]:
    """Return name → type of every metric that any process shows."""
    registries: list[CollectorRegistry] = [Metrics().registry, process.REGISTRY]
    collectors = [each for registry in registries for each in registry._collector_to_names]
    return {metric.name: metric.type for each in collectors for metric in each.describe()}  # type: ignore[attr-defined]


def series() -> set[str]:
    return {name + suffix for name, type_ in families().items() for suffix in SUFFIXES[type_]}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((OPS / "alerts.yml").read_text())["groups"]
    return list(group["rules"])


def named_in(expression: str) -> set[str]:
    return set(re.findall(r"\boutbox_\w+", expression))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_is_about_metrics_that_exist_and_has_an_entry_in_the_runbook(rule: dict[str, Any]) -> None:
    assert named_in(rule["expr"])
    assert named_in(rule["expr"]) <= series()
    assert rule["labels"]["severity"] in SEVERITIES
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    _, _, entry = runbook.partition(f"\n## {rule['alert']}\n")
    entry = entry.partition("\n## ")[0]
    assert all(f"**{part}.** " in entry for part in PARTS)


def test_every_alert_is_tried_and_the_runbook_has_no_other() -> None:
    alerts = {rule["alert"] for rule in rules()}
    tried = (OPS / "alerts_test.yml").read_text()
    assert {alert for alert in alerts if f"#{alert.lower()}\n" not in tried} == set()
    assert set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)) == alerts
    assert named_in(tried) <= series()


@pytest.mark.parametrize("name", ["grafana.json", "grafana_receivers.json"])
def test_a_grafana_dashboard_shows_metrics_that_exist(name: str) -> None:
    dashboard = json.loads((OPS / name).read_text())
    assert {each["name"] for each in dashboard["templating"]["list"]} == {"datasource"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert named_in(target["expr"]) <= series(), panel["title"]


def test_grafana_shows_what_the_overview_shows() -> None:
    page = (ROOT / "outbox_cli" / "dashboard" / "templates" / "overview.html").read_text()
    charts = re.findall(r'ui\.chart\("\w+", "([^"]+)"', page)
    tiles = re.findall(r'ui\.tile\("([^"]+)"', page)
    sections = [re.sub("{% if .+?{% endif %}|<[^>]+>", "", each) for each in re.findall(r"<h2>(.+?)</h2>", page)]
    panels = [panel["title"] for panel in json.loads((OPS / "grafana.json").read_text())["panels"]]
    assert panels[: len(charts)] == charts
    assert len(panels) == len(set(panels))
    assert set(panels) == {*charts, *tiles, *sections} - LAST_VALUES_OF_CHARTS - IN_NO_METRIC


def test_the_documentation_lists_every_metric() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    _, _, metrics = page.partition("\n### Metrics\n")
    metrics = metrics.partition("\n### ")[0]
    first_columns = re.findall(r"^\| ((?:`outbox_\w+`(?:, )?)+) \|", metrics, re.MULTILINE)
    listed = {name for column in first_columns for name in re.findall(r"\w+", column)}
    assert listed == {name + ("_total" if type_ == "counter" else "") for name, type_ in families().items()}


def test_names_follow_the_conventions() -> None:
    for name, type_ in families().items():
        assert name.startswith("outbox_")
        assert type_ != "histogram" or name.endswith("_seconds")
        assert not re.search(r"_(ms|millis|minutes)(_|$)", name)


def test_types_beyond_a_limit_share_one_series() -> None:
    metrics = Metrics()
    metrics.emitted({f"type.{n}": 1 for n in range(150)})
    metrics.emitted({"type.3": 2, "type.149": 1})
    text = metrics.text().decode()
    assert 'outbox_emitted_messages_total{type="type.3"} 3.0' in text
    assert 'outbox_emitted_messages_total{type="other"} 51.0' in text
    assert text.count("outbox_emitted_messages_total{") == 101
