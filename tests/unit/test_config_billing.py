"""The sections `billing` and `alerts`, as people write them, and the mistakes they make."""

from __future__ import annotations

import pytest

from headgate.config_file import ConfigError, parse_config

WHOLE = """
billing:
  stripe: {kind: stripe, api_key: "${KEY}", event: llm_spend, since: 2026-11-01}
  meter:  {kind: openmeter, url: "http://openmeter:8888", event: llm, value: tokens, remembers: 32d, allow_private: true}
  lago:   {kind: lago, api_key: "${KEY}", event: llm}
  rows:   {kind: csv, file: rows/owed.csv}
  mine:   {kind: webhook, url: "https://example.com/hook?a=1", secret: "${KEY}"}
alerts: {url: "https://example.com/alerts", secret: "${KEY}"}
"""


def parsed(text: str):
    return parse_config(text, env={"KEY": "sk_live_secret"})


def test_every_kind_of_sink_can_be_written() -> None:
    config = parsed(WHOLE)
    assert [sink.kind for sink in config.billing.values()] == ["stripe", "openmeter", "lago", "csv", "webhook"]
    assert str(config.billing["stripe"].since) == "2026-11-01"
    assert config.billing["meter"].remembers == 32 * 86_400
    assert config.alerts.sink().secret.get_secret_value() == "sk_live_secret"


def test_nobody_is_told_anything_unless_it_is_written() -> None:
    config = parsed("")
    assert (config.billing, config.alerts) == ({}, None)


@pytest.mark.parametrize(
    ("sink", "says"),
    [
        ("{kind: stripe, api_key: k}", "billing.x.event: a sink of kind stripe needs it"),
        ("{kind: lago, event: e}", "billing.x.api_key: a sink of kind lago needs it"),
        ("{kind: openmeter, event: e}", "billing.x.url: a sink of kind openmeter needs it"),
        ("{kind: webhook}", "billing.x.url: a sink of kind webhook needs it"),
        ("{kind: csv, api_key: k}", "billing.x.api_key: a sink of kind csv has no api_key; it has file, kind, since"),
        ("{kind: webhook, url: 'https://a.example', event: e}", "a sink of kind webhook has no event"),
        ("{kind: stripes}", "billing.x.kind: must be stripe, openmeter, lago, csv, jsonl or webhook, not 'stripes'"),
        ("{kind: csv, sinks: 1}", "billing.x.sinks: unknown key"),
        ("{kind: webhook, url: 'http://localhost/x'}", "set allow_private to allow it"),
        ("{kind: webhook, url: 'http://169.254.169.254/'}", "set allow_private to allow it"),
        ("{kind: webhook, url: 'https://user:pw@a.example'}", "user name or password"),
        ("{kind: webhook, url: 'file:///etc/passwd'}", "must start with http"),
        ("{kind: stripe, api_key: k, event: e, value: euro}", "billing.x.value: must be nano_usd, usd or tokens"),
        ("{kind: stripe, api_key: k, event: e, remembers: 0s}", "billing.x.remembers: must be greater than 0"),
        ("{kind: csv, since: soon}", "billing.x.since"),
        ("{}", "billing.x.kind: is required"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_place(sink: str, says: str) -> None:
    with pytest.raises(ConfigError) as told:
        parsed(f"billing:\n  x: {sink}\n")
    assert str(told.value).startswith("headgate.yaml:2: billing.x")
    assert says in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["alerts", "a/b", "../x", "a b", "x" * 65])
def test_a_sink_is_named_so_that_a_file_can_be(name: str) -> None:
    with pytest.raises(ConfigError, match="a sink's name is"):
        parsed(f'billing:\n  "{name}": {{kind: csv}}\n')


def test_no_secret_is_in_an_error_or_in_what_is_shown() -> None:
    with pytest.raises(ConfigError) as told:
        parsed('alerts: {url: "https://a.example", secret: [whsec_1]}')
    assert "whsec_1" not in str(told.value)
    assert "sk_live_secret" not in parsed(WHOLE).model_dump_json()
