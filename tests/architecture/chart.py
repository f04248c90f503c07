"""The Helm chart rendered by Helm itself, in a process of its own: its runtime takes over what signals do in the one it is in.

    python -m tests.architecture.chart < WISHES.json    # {"values": [...], "lint": bool} of one line

It contacts no cluster and no registry. Only this file imports the library.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import yaml

from tests.architecture.tree import ROOT

CHART = ROOT / "deploy" / "helm" / "headgate"
RELEASE, NAMESPACE = "headgate", "ai"
KUBERNETES = "1.34"
"""The version whose schemas manifests are held against."""

Manifest = dict[str, Any]


class Refused(Exception):
    """What Helm said of values that cannot be used."""


def rendered(*values: dict[str, Any]) -> list[list[Manifest]]:
    """The manifests of one release for each of these values. Raises Refused."""
    answers = _asked({"values": values})
    for one in answers:
        if "refused" in one:
            raise Refused(one["refused"])
    return [one["manifests"] for one in answers]


def findings(values: dict[str, Any]) -> list[str]:
    """What `helm lint --strict` says of the chart beyond recommendations."""
    return _asked({"values": [values], "lint": True})[0]["findings"]


def _asked(wishes: dict[str, Any]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.architecture.chart"],
        input=json.dumps(wishes), capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _answered(wishes: dict[str, Any]) -> list[dict[str, Any]]:
    import helm_python  # in this process alone

    if wishes.get("lint"):
        report = helm_python.lint(CHART, wishes["values"][0], strict=True, kube_version=f"v{KUBERNETES}.0")
        told = [one["error"] for one in report["messages"] if one["severity"] > 1]
        return [{"findings": [*told, *report["errors"]]}]
    answers: list[dict[str, Any]] = []
    with helm_python.Chart.load(CHART) as chart:
        for values in wishes["values"]:
            try:
                files = chart.render(values, name=RELEASE, namespace=NAMESPACE)
            except helm_python.HelmError as error:
                answers.append({"refused": str(error)})
                continue
            texts = [text for name, text in files.items() if name.endswith(".yaml")]
            answers.append({"manifests": [one for text in texts for one in yaml.safe_load_all(text) if one]})
    return answers


if __name__ == "__main__":
    json.dump(_answered(json.load(sys.stdin)), sys.stdout)
