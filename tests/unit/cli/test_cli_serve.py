"""`headgate serve`: what a newcomer reads. That it serves is tested over HTTP elsewhere."""

from __future__ import annotations

import socket

import pytest

from headgate.cli.serve import greeting, with_answers
from headgate.config import Config
from tests.unit.cli.conftest import Headgate

URL = "http://127.0.0.1:8000"


def test_a_simulated_provider_is_said_plainly_on_the_first_line() -> None:
    lines = greeting(Config(), URL, None)
    assert lines[0].startswith("No provider is configured: a simulated one answers")
    assert f"{URL}/v1" in lines[1]
    assert lines[2] == f"API reference: {URL}/docs"


def test_the_admin_key_is_shown_with_a_command_to_copy() -> None:
    lines = greeting(Config.default({"OPENAI_API_KEY": "k"}), URL, "hg-admin")
    assert "simulated" not in lines[0]
    assert "hg-admin" in lines[2]
    assert lines[-1] == (
        f"  curl {URL}/admin/keys -H 'Authorization: Bearer hg-admin' -H 'Content-Type: application/json'"
        """ -d '{"tenant": "default"}'"""
    )


def test_without_a_new_admin_key_no_key_is_shown() -> None:
    assert "hg-" not in "".join(greeting(Config(), URL, None))


async def test_the_simulated_provider_runs_while_it_is_needed_and_is_priced() -> None:
    async with with_answers(Config.model_validate({"tenant_defaults": {"rpm": 7}})) as config:
        assert not config.simulated
        assert config.tenant_defaults.rpm == 7
        assert set(config.models) == {"sim-small", "sim-large", "sim-embedding"}
        assert all(model.price is not None for model in config.models.values())
        assert config.routes["auto"].tiers is not None
        port = int(config.providers["simulated"].base_url.split(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port)):
            pass


async def test_who_has_providers_gets_no_simulated_one() -> None:
    config = Config.default({"OPENAI_API_KEY": "k"})
    async with with_answers(config) as ready:
        assert ready is config


def test_a_taken_port_is_one_line_with_a_way_out(headgate: Headgate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        told = headgate("serve", "--port", str(number), code=1).stderr
    assert told == f"error: port {number} of 127.0.0.1 is in use; choose another with --port\n"


@pytest.mark.parametrize(
    ("shared", "told"),
    [
        (
            {"storage": {"url": "postgresql://hg:deep-secret@db/headgate?sslpassword=deep-secret"}},
            (
                "Tenants, keys, jobs, budgets and the journal: postgresql://hg:**********@db/headgate; rates, answers and flights: each"
                " process by itself"
            ),
        ),
        (
            {"redis": {"url": "redis://:deep-secret@redis:6379/0"}},
            (
                "Tenants, keys, jobs, budgets and the journal: the data directory; rates, answers and flights:"
                " redis://:**********@redis:6379/0"
            ),
        ),
        (
            {"storage": {"url": "postgresql://db/headgate"}, "redis": {"url": "rediss://redis:6379"}},
            (
                "Tenants, keys, jobs and the journal: postgresql://db/headgate; budgets, rates, answers and flights:"
                " rediss://redis:6379"
            ),
        ),
    ],
)
def test_what_lies_where_is_said_without_passwords(shared: dict[str, dict[str, str]], told: str) -> None:
    assert greeting(Config.model_validate(shared), URL, None)[3:] == [told]
