"""deploy/compose, .env.example and the files that it mounts."""

from __future__ import annotations

import re

import pytest
import yaml
from compose_spec import PyCompose

from headgate.server.serve import GRACE
from tests.architecture.deployed import (
    COMPOSE,
    CONFIG_FILE,
    DEPLOY,
    OWN_IMAGE,
    check_command,
    compose,
    example,
    loaded,
    own_services,
    own_variables,
    variables_of,
)
from tests.architecture.tree import text
from tests.servers.nginx import DEPLOYED

SERVICES = tuple(compose()["services"])
SECRETS = re.compile(r"PASSWORD|SECRET|KEY")


def test_it_is_what_the_specification_of_compose_allows() -> None:
    read = PyCompose.from_yaml(yaml.safe_dump(compose()))
    read.validate()
    assert set(read.service_names()) == set(SERVICES)


def test_everything_that_is_needed_is_there() -> None:
    assert set(SERVICES) >= {
        "gateway", "worker", "migrate", "redis", "postgres", "pgbouncer", "nginx", "prometheus", "grafana", "simulator",
    }  # fmt: skip
    assert compose()["services"]["gateway"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_no_more_than_it_needs(name: str) -> None:
    one = compose()["services"][name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert "cap_add" not in one
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= set(one["deploy"]["resources"]["limits"])
    assert "healthcheck" in one
    assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", one["image"]), "an image is named with its version"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_says_that_it_is_well(name: str) -> None:
    services = compose()["services"]
    for other, wish in services[name].get("depends_on", {}).items():
        ends, checked = services[other]["restart"] == "no", not services[other]["healthcheck"].get("disable")
        assert wish["condition"] == ("service_completed_successfully" if ends else "service_healthy"), other
        assert ends or checked, f"{name} waits for {other}, which never says that it is well"


@pytest.mark.parametrize("name", ["gateway", "worker"])
def test_nothing_serves_before_the_database_is_migrated(name: str) -> None:
    assert compose()["services"][name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_no_secret_stands_in_a_file() -> None:
    """Each is a variable without a default, and `.env.example` has none."""
    raw = text(COMPOSE / "compose.yaml") + text(COMPOSE / "headgate.yaml")
    found = re.findall(r"^ +(\w*(?:PASSWORD|SECRET|KEY)\w*): *(.+)$", raw, re.MULTILINE)
    assert len(found) > 5
    assert [
        name for name, value in found if not re.fullmatch(r"\$\{\w+:[?-][^}]*\}", value) or ":-" in value[:-2]
    ] == []
    empty = re.findall(r"^(\w+)=$", text(COMPOSE / ".env.example"), re.MULTILINE)
    assert {name for name in example() if SECRETS.search(name)} == set(empty)


def test_every_variable_of_the_example_is_used_and_every_used_one_is_there() -> None:
    used = set(re.findall(r"\$\{(\w+)", text(COMPOSE / "compose.yaml")))
    assert used == set(example())


@pytest.mark.parametrize("name", sorted(own_services()))
def test_a_command_line_is_one_of_headgates(name: str) -> None:
    command = own_services()[name]["command"]
    check_command(command)
    if "--config" in command:
        assert command[command.index("--config") + 1] == CONFIG_FILE


@pytest.mark.parametrize("name", sorted(own_services()))
def test_a_service_finds_the_configuration_it_is_given(name: str) -> None:
    one = own_services()[name]
    variables = variables_of(text(COMPOSE / "headgate.yaml"))
    assert set(one["environment"]) <= own_variables() | variables
    if "--config" not in one["command"]:
        return
    (mount,) = (volume for volume in one["volumes"] if volume["target"] == CONFIG_FILE)
    config = loaded(text(COMPOSE / mount["source"]), one["environment"])
    assert config.server.port == 8000
    assert config.server.host == "0.0.0.0"
    url = config.storage.postgres
    assert url is not None
    assert f"@{'postgres' if name == 'migrate' else 'pgbouncer'}:5432/" in url
    assert config.redis is not None


def test_every_file_that_is_mounted_is_there_and_every_file_is_mounted() -> None:
    mounted = {
        (COMPOSE / volume["source"]).resolve()
        for one in compose()["services"].values()
        for volume in one.get("volumes", [])
        if volume["type"] == "bind"
    }
    assert [str(path) for path in mounted if not path.exists()] == []
    assert {path for path in DEPLOYED.iterdir() if path.suffix == ".conf"} <= mounted
    assert {COMPOSE / "headgate.yaml", COMPOSE / "redis.conf", DEPLOY / "prometheus" / "rules.yml"} <= mounted


def test_calls_under_way_get_the_time_that_the_process_gives_them() -> None:
    for name in ("gateway", "worker"):
        assert int(own_services()[name]["stop_grace_period"].removesuffix("s")) > GRACE
    shutdown = re.search(r"worker_shutdown_timeout (\d+)s;", text(DEPLOYED / "nginx.conf"))
    assert shutdown is not None
    assert GRACE < int(shutdown[1]) < int(compose()["services"]["nginx"]["stop_grace_period"].removesuffix("s"))


def test_the_limits_of_nginx_are_those_of_the_gateway() -> None:
    config = loaded(text(COMPOSE / "headgate.yaml"), example())
    sizes = re.findall(r"client_max_body_size (\d+)m;", text(DEPLOYED / "headgate.conf"))
    assert {int(size) * 1024 * 1024 for size in sizes} == {config.server.limits.body}
    reading = re.search(r"proxy_read_timeout (\d+)s;", text(DEPLOYED / "proxy.conf"))
    assert reading is not None
    assert int(reading[1]) > config.dispatch.total


def test_redis_keeps_what_is_counted() -> None:
    settings = dict(line.split(None, 1) for line in text(COMPOSE / "redis.conf").splitlines() if line[:1].isalpha())
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"


def test_pgbouncer_pools_transactions_with_passwords_that_are_not_sent() -> None:
    environment = compose()["services"]["pgbouncer"]["environment"]
    assert (environment["POOL_MODE"], environment["AUTH_TYPE"]) == ("transaction", "scram-sha-256")


def test_only_nginx_and_grafana_are_reachable_and_by_default_from_the_machine_itself() -> None:
    published = {name: one["ports"] for name, one in compose()["services"].items() if "ports" in one}
    assert set(published) == {"nginx", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert compose()["networks"]["inside"]["internal"] is True


def test_the_image_is_built_from_here() -> None:
    for name, one in own_services().items():
        assert one["image"].startswith(f"{OWN_IMAGE}:"), name
        assert (COMPOSE / one["build"]["context"] / one["build"]["dockerfile"]).is_file()
