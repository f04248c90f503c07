"""deploy/prometheus and deploy/grafana: what is asked of metrics that exist, in words that Prometheus understands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.architecture.chart import rendered
from tests.architecture.deployed import DEPLOY, compose
from tests.architecture.tree import ROOT, text
from tests.servers.promtool import promtool

PROMETHEUS = DEPLOY / "prometheus"
RULES = yaml.safe_load(text(PROMETHEUS / "rules.yml"))
DASHBOARDS = tuple(sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")))
FOREIGN = {"redis_memory_used_bytes", "redis_memory_max_bytes"}
"""Metrics of redis_exporter, which deploy/compose runs."""

THRESHOLDS = {
    "HeadgateHitsSlow": "> 0.5",
    "HeadgateHitRatioLow": "< 0.4",
    "HeadgateHitRatioVeryLow": "< 0.3",
    "HeadgateCoalescesLittle": "< 0.5",
    "HeadgateFallsBack": "> 0.15",
    "HeadgateBudgetNearlySpent": "> 0.8",
    "HeadgateRedisFull": "> 0.8",
    "HeadgateRouterUnsure": "< 0.85",
    "HeadgateQueueLong": "> 50",
}
"""When somebody is told."""


def rules(kind: str) -> dict[str, dict[str, Any]]:
    return {rule[kind]: rule for group in RULES["groups"] for rule in group["rules"] if kind in rule}


def told() -> dict[str, str]:
    """Every metric of the reference, by its kind."""
    return dict(re.findall(r"^\| `(headgate_\w+)` \| (\w+) \|", text(ROOT / "docs/reference/metrics.md"), re.MULTILINE))


def expressions(path: Path) -> list[str]:
    """What a dashboard asks; variables of Grafana's stand for what it would put there."""
    read = json.loads(text(path))
    asked = [target["expr"] for panel in read["panels"] for target in panel.get("targets", [])]
    return [one.replace("$__rate_interval", "5m").replace("$tenant", ".*") for one in asked]


def unknown(asked: str) -> set[str]:
    """The names in an expression that neither a metric nor a recorded rule has."""
    kinds = told()
    known = set(kinds) | FOREIGN | set(rules("record"))
    known |= {
        f"{name}_{part}" for name, kind in kinds.items() if kind == "histogram" for part in ("bucket", "sum", "count")
    }
    known -= {name for name, kind in kinds.items() if kind == "histogram"}
    return set(re.findall(r"\b(?:headgate|redis)[_:][\w:]+", asked)) - known


def test_every_metric_that_is_asked_for_exists() -> None:
    asked = {name: rule["expr"] for kind in ("record", "alert") for name, rule in rules(kind).items()}
    asked |= {f"{path.stem}: {one}": one for path in DASHBOARDS for one in expressions(path)}
    assert {name: missing for name, one in asked.items() if (missing := unknown(one))} == {}


def test_every_metric_is_on_a_dashboard() -> None:
    asked = " ".join([*(one for path in DASHBOARDS for one in expressions(path)), text(PROMETHEUS / "rules.yml")])
    assert [name for name in told() if name not in asked] == []


def test_prometheus_takes_its_configuration_and_the_rules() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_alerts_are_heard_when_their_time_has_come_and_only_then() -> None:
    promtool("test", "rules", PROMETHEUS / "rules_test.yml")


def test_every_alert_is_tried() -> None:
    tried = set(re.findall(r'alertname="(\w+)"', text(PROMETHEUS / "rules_test.yml")))
    assert tried == set(rules("alert"))


@pytest.mark.parametrize("name", THRESHOLDS)
def test_an_alert_has_its_threshold(name: str) -> None:
    assert THRESHOLDS[name] in rules("alert")[name]["expr"]


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for name, rule in rules("alert").items():
        assert rule["labels"].keys() == {"severity"}, name
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}, name
        assert rule["annotations"].keys() == {"summary", "description"}, name
        for page in re.findall(r"docs/[\w/.-]+\.md", rule["annotations"]["description"]):
            assert (ROOT / page).exists(), page


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_prometheus_understands_what_a_dashboard_asks(path: Path, tmp_path: Path) -> None:
    asked = [{"record": f"asked:{number}", "expr": one} for number, one in enumerate(expressions(path))]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}))
    promtool("check", "rules", file)


def test_dashboards_ask_the_source_that_is_provided() -> None:
    provided = yaml.safe_load(text(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml"))["datasources"]
    uids = {one["uid"] for one in provided}
    boards = [json.loads(text(path)) for path in DASHBOARDS]
    assert {panel["datasource"]["uid"] for one in boards for panel in one["panels"] if "datasource" in panel} == uids
    assert len({one["uid"] for one in boards}) == len(boards)
    for one in boards:
        numbers = [panel["id"] for panel in one["panels"]]
        assert len(numbers) == len(set(numbers))
    (folder,) = yaml.safe_load(text(DEPLOY / "grafana/provisioning/dashboards/headgate.yaml"))["providers"]
    mounts = [volume["target"] for volume in compose()["services"]["grafana"]["volumes"]]
    assert folder["options"]["path"] in mounts
    home = compose()["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.rpartition("/")[2] in {path.name for path in DASHBOARDS}


def test_what_is_scraped_runs() -> None:
    jobs = yaml.safe_load(text(PROMETHEUS / "prometheus.yml"))["scrape_configs"]
    names = {name for job in jobs for one in job.get("dns_sd_configs", []) for name in one["names"]}
    names |= {
        target.partition(":")[0] for job in jobs for one in job.get("static_configs", []) for target in one["targets"]
    }
    assert names <= set(compose()["services"])


def test_workers_are_scaled_by_a_metric_that_the_adapter_provides() -> None:
    (provided,) = yaml.safe_load(text(PROMETHEUS / "adapter-values.yaml"))["rules"]["external"]
    name = re.match(r"\w+", provided["seriesQuery"])
    assert name is not None
    assert name[0] in told()
    ((*manifests,),) = rendered({"existingSecret": "headgate"})
    wanted = {
        metric["external"]["metric"]["name"]
        for one in manifests
        if one["kind"] == "HorizontalPodAutoscaler"
        for metric in one["spec"]["metrics"]
        if metric["type"] == "External"
    }
    assert wanted == {name[0]}
