"""deploy/helm/headgate, rendered by Helm itself and held against Kubernetes' own schemas."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml

from headgate.config_file import ConfigError
from headgate.server.serve import GRACE
from tests.architecture.chart import CHART, KUBERNETES, Manifest, Refused, findings, rendered
from tests.architecture.deployed import CONFIG_FILE, check_command, loaded, own_variables, variables_of
from tests.architecture.tree import ROOT, text

SECRET = {
    "HEADGATE_ADMIN_KEY": "a",
    "HEADGATE_SECRET": "b",
    "DATABASE_URL": "postgresql://headgate:c@pgbouncer:5432/headgate",
    "REDIS_URL": "rediss://:d@redis:6379/0",
    "OPENAI_API_KEY": "e",
    "DIRECT_URL": "postgresql://headgate:c@postgres:5432/headgate",
}
"""What the Secret of somebody who installs the chart has."""

GUIDE = text(ROOT / "docs" / "guides" / "deploying.md")
PLAIN: dict[str, Any] = {"existingSecret": "headgate"}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it comes": PLAIN,
    "as the guide has it": yaml.safe_load(re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)[0]),
    "from outside": PLAIN | {"ingress": {"enabled": True, "host": "ai.example.com", "tlsSecret": "tls"}},
    "a pooler before PostgreSQL": PLAIN | {"migrate": {"databaseUrlKey": "DIRECT_URL"}},
    "fixed numbers of replicas": PLAIN
    | {"gateway": {"replicas": 3, "autoscaling": {"enabled": False}}, "worker": {"autoscaling": {"enabled": False}}},
    "an open network": PLAIN | {"networkPolicy": {"enabled": False}},
    "a narrow network": PLAIN
    | {
        "networkPolicy": {
            "redis": {"port": 6380, "to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]},
            "extraEgress": [
                {
                    "to": [{"podSelector": {"matchLabels": {"app": "vllm"}}}],
                    "ports": [{"port": 8000, "protocol": "TCP"}],
                }
            ],
        }
    },
    "a configuration of one's own": PLAIN
    | {
        "config": {
            "server": {"port": 9000},
            "redis": {"cluster": True},
            "providers": {"openai": {"kind": "openai", "api_key": "${OPENAI_API_KEY}"}},
            "models": {"gpt-4o": {"provider": "openai", "max_output": 8192}},
            "routes": {"auto": {"tiers": {"low": ["gpt-4o"], "medium": ["gpt-4o"], "high": ["gpt-4o"]}}},
            "cache": {"entries_per_tenant": 2_000_000, "semantic": {"max_error_rate": 0.005, "mode": "shadow"}},
            "tenant_defaults": {"budget": {"hour": "12.50"}, "rpm": 600},
        }
    },
    "PostgreSQL alone": PLAIN | {"config": {"redis": None}},
    "places for pods": PLAIN
    | {
        "image": {
            "repository": "registry.example.com/headgate",
            "digest": "sha256:" + "0" * 64,
            "pullSecrets": ["pull"],
        },
        "podAnnotations": {"team": "ai"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "ai", "operator": "Exists"}],
    },
}


@cache
def releases() -> dict[str, list[Manifest]]:
    return dict(zip(VARIANTS, rendered(*VARIANTS.values()), strict=True))


def of_kind(variant: str, kind: str) -> list[Manifest]:
    return [one for one in releases()[variant] if one["kind"] == kind]


def pods(variant: str) -> Iterator[tuple[str, Manifest]]:
    """The pods of a release by the name of their owner, migration included."""
    for one in releases()[variant]:
        if one["kind"] in {"Deployment", "Job"}:
            yield one["metadata"]["name"], one["spec"]["template"]


def hooks(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("annotations", {}).get("helm.sh/hook", ""))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_manifest_is_what_kubernetes_takes(variant: str) -> None:
    for manifest in releases()[variant]:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in releases()[variant]]
    assert len(names) == len(set(names))


def test_helm_finds_nothing_to_say() -> None:
    assert findings(PLAIN) == []


@pytest.mark.parametrize(
    "values",
    [
        {},
        PLAIN | {"replicas": 3},
        PLAIN | {"gateway": {"replicas": "three"}},
        PLAIN | {"config": {"storage": {"url": "postgresql://headgate:secret@db/headgate"}}},
        PLAIN | {"config": {"redis": {"url": "redis://:secret@redis:6379"}}},
        PLAIN | {"config": {"storage": None}},
        PLAIN | {"config": {"server": {"host": "127.0.0.1"}}},
        PLAIN | {"ingress": {"enabled": True}},
    ],
    ids=[
        "no secret",
        "unknown",
        "not a number",
        "a password in the values",
        "and another",
        "no database",
        "reachable by nobody",
        "no host",
    ],
)
def test_values_that_cannot_work_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        rendered(values)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_configuration_is_one_that_headgate_takes(variant: str) -> None:
    maps = of_kind(variant, "ConfigMap")
    texts = {one["data"]["headgate.yaml"] for one in maps}
    assert len(maps) == 2
    assert len(texts) == 1, "what is migrated is what is served"
    config = loaded(texts.pop(), SECRET)
    assert config.storage.postgres == SECRET["DATABASE_URL"]
    assert (config.redis is None) == (variant == "PostgreSQL alone")
    (service,) = of_kind(variant, "Service")
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    for name, pod in pods(variant):
        if "migrate" not in name:
            assert pod["spec"]["containers"][0]["ports"] == [{"name": "http", "containerPort": config.server.port}]


def test_a_setting_that_does_not_exist_is_found_by_the_same_check() -> None:
    (manifests,) = rendered(PLAIN | {"config": {"cash": {}}})
    (config, _) = [one["data"]["headgate.yaml"] for one in manifests if one["kind"] == "ConfigMap"]
    with pytest.raises(ConfigError):
        loaded(config, SECRET)


@pytest.mark.parametrize("variant", VARIANTS)
def test_commands_are_headgates_and_find_their_configuration(variant: str) -> None:
    ran = set()
    for _, pod in pods(variant):
        (container,) = pod["spec"]["containers"]
        ran.add(container["args"][0])
        assert container["args"][1:3] == ["--config", CONFIG_FILE]
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        held = {one["name"]: one for one in pod["spec"]["volumes"]}
        assert set(mounts.values()) == set(held)
        config = held[mounts["/etc/headgate"]]["configMap"]["name"]
        assert config in {one["metadata"]["name"] for one in of_kind(variant, "ConfigMap")}
    assert ran == {"serve", "worker", "migrate"}


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_a_command_line_is_one_of_headgates(command: str) -> None:
    (arguments,) = {
        tuple(container["args"])
        for variant in VARIANTS
        for _, pod in pods(variant)
        for container in pod["spec"]["containers"]
        if container["args"][0] == command
    }
    check_command(list(arguments))


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_can_do_no_more_than_they_need(variant: str) -> None:
    for name, pod in pods(variant):
        own = pod["spec"]
        assert own["automountServiceAccountToken"] is False, name
        assert own["securityContext"]["runAsNonRoot"] is True
        assert own["securityContext"]["runAsUser"] == 10001
        assert own["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = own["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_secrets_are_named_and_never_held(variant: str) -> None:
    assert of_kind(variant, "Secret") == []
    for _, pod in pods(variant):
        (container,) = pod["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "headgate"}}]
        for one in container.get("env", []):
            assert one["valueFrom"]["secretKeyRef"]["key"] in SECRET
    (config, _) = (one["data"]["headgate.yaml"] for one in of_kind(variant, "ConfigMap"))
    assert variables_of(config) <= set(SECRET)


def test_what_the_values_say_of_the_secret_is_so() -> None:
    """The names in the comment are read by the code or named by the configuration."""
    defaults = text(CHART / "values.yaml")
    config = yaml.safe_dump(yaml.safe_load(defaults)["config"])
    told = {name for name in SECRET if name in defaults.partition("existingSecret:")[0]}
    assert told == {"HEADGATE_ADMIN_KEY", "HEADGATE_SECRET", "DATABASE_URL", "REDIS_URL"}
    assert told <= own_variables() | variables_of(config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_calls_under_way_get_the_time_that_the_process_gives_them(variant: str) -> None:
    for one in of_kind(variant, "Deployment"):
        pod = one["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert waits > 0
        assert pod["terminationGracePeriodSeconds"] > waits + GRACE
        assert one["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_store_that_is_down_takes_no_running_replica_down(variant: str) -> None:
    """Money waits then, all else goes on: replicas that are sent nothing could not."""
    for one in of_kind(variant, "Deployment"):
        (container,) = one["spec"]["template"]["spec"]["containers"]
        paths = {
            probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        assert paths == {"startupProbe": "/readyz", "livenessProbe": "/healthz", "readinessProbe": "/healthz"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_migration_runs_first_and_brings_what_it_needs(variant: str) -> None:
    (job,) = of_kind(variant, "Job")
    assert hooks(job) == "pre-install,pre-upgrade"
    (volume,) = (one for one in job["spec"]["template"]["spec"]["volumes"] if "configMap" in one)
    (needed,) = (one for one in of_kind(variant, "ConfigMap") if one["metadata"]["name"] == volume["configMap"]["name"])
    assert hooks(needed) == hooks(job)
    weights = [int(one["metadata"]["annotations"]["helm.sh/hook-weight"]) for one in (needed, job)]
    assert weights[0] < weights[1]
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_selectors_find_the_pods_they_are_for(variant: str) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(variant)}

    def found(selector: dict[str, str]) -> set[str]:
        return {name for name, own in labels.items() if selector.items() <= own.items()}

    for one in of_kind(variant, "Deployment"):
        assert found(one["spec"]["selector"]["matchLabels"]) == {one["metadata"]["name"]}
    for one in of_kind(variant, "PodDisruptionBudget"):
        assert found(one["spec"]["selector"]["matchLabels"]) == {one["metadata"]["name"]}
    (service,) = of_kind(variant, "Service")
    assert found(service["spec"]["selector"]) == {"headgate-gateway"}
    for one in of_kind(variant, "NetworkPolicy"):
        assert found(one["spec"]["podSelector"]["matchLabels"]) == set(labels)
    (account,) = of_kind(variant, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False


def test_the_network_is_closed_but_for_what_is_needed() -> None:
    (policy,) = of_kind("as it comes", "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert ports == {53, 6379, 5432, 443}
    (incoming,) = policy["spec"]["ingress"]
    names = {one["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for one in incoming["from"]}
    assert names == {"ingress-nginx", "monitoring"}
    assert of_kind("an open network", "NetworkPolicy") == []


def test_gateways_follow_their_processor_and_workers_the_queue_too() -> None:
    scalers = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in of_kind("as it comes", "HorizontalPodAutoscaler")
    }
    assert {name: [metric["type"] for metric in one["metrics"]] for name, one in scalers.items()} == {
        "headgate-gateway": ["Resource"],
        "headgate-worker": ["Resource", "External"],
    }
    for one in of_kind("as it comes", "Deployment"):
        assert "replicas" not in one["spec"], "or each upgrade would undo what was scaled"
    assert of_kind("fixed numbers of replicas", "HorizontalPodAutoscaler") == []
    fixed = {
        one["metadata"]["name"]: one["spec"]["replicas"] for one in of_kind("fixed numbers of replicas", "Deployment")
    }
    assert fixed == {"headgate-gateway": 3, "headgate-worker": 1}


def test_an_ingress_lets_streams_flow_and_keeps_operators_paths_inside() -> None:
    (ingress,) = of_kind("from outside", "Ingress")
    told = {key.rpartition("/")[2]: value for key, value in ingress["metadata"]["annotations"].items()}
    assert told["proxy-buffering"] == "off"
    assert told["proxy-http-version"] == "1.1"
    assert "non_idempotent" not in told["proxy-next-upstream"]
    config = loaded("{}", {})
    assert int(told["proxy-read-timeout"]) > config.dispatch.total
    assert int(told["proxy-body-size"].removesuffix("m")) * 1024 * 1024 == config.server.limits.body
    paths = [one["path"] for one in ingress["spec"]["rules"][0]["http"]["paths"]]
    assert not any(own.startswith(path) for path in paths for own in ("/admin", "/docs", "/metrics"))
    assert of_kind("as it comes", "Ingress") == []


def test_commands_of_the_guide_are_headgates() -> None:
    shells = "".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)).replace("\\\n", "")
    asked = re.findall(r"exec gateway +(headgate .+)$", shells, re.MULTILINE)
    assert asked
    for command in asked:
        check_command(shlex.split(command)[1:])


def test_chart_and_package_are_of_one_version() -> None:
    from importlib.metadata import version

    chart = yaml.safe_load(text(CHART / "Chart.yaml"))
    assert chart["version"] == chart["appVersion"] == version("headgate")
