"""What people write, and how they are told that it is wrong."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from headgate.config import Config
from headgate.config_file import ConfigError, find_config, load_config, parse_config
from headgate.config_storage import masked
from headgate.config_units import LONGEST, bytes_of, duration_text, seconds_of, size_text
from headgate.model.money import Price
from headgate.model.tenancy import Caps, Policy

CONTRACT = """
storage: {url: "sqlite:///headgate.db"}
providers:
  openai: {kind: openai, base_url: "https://api.openai.com/v1", api_key: "${OPENAI_API_KEY}"}
  vllm:   {kind: openai, base_url: "http://vllm:8000/v1", allow_private: true}
models:
  gpt-4o-mini: {provider: openai, context_window: 128000, capabilities: [tools, vision, json]}
  gpt-4o: {provider: openai}
  claude-3-5-sonnet: {provider: vllm, model: mistral, price: {input: 0.15, output: "0.60"}}
routes:
  auto:
    tiers: {low: [gpt-4o-mini], medium: [gpt-4o-mini], high: [gpt-4o, claude-3-5-sonnet]}
cache:
  exact:    {ttl: 24h}
  semantic: {max_error_rate: 0.01, ttl: 1h, embedder: minilm, mode: on}     # on | shadow | off
coalesce: {mode: semantic, max_followers: 1000, patience: 5s}
tenant_defaults: {budget: {hour: 10.00}, rpm: 120, concurrency: 50}
"""

PROVIDER = "providers: {p: {kind: openai}}\n"

WRONG = [
    # keys
    ("providers:\n  openai:\n    kind: openai\n    base_ulr: x", "4: providers.openai.base_ulr: unknown key; did you mean base_url?"),
    ("redis: {url: x}", "1: redis.url: must be a URL such as redis://localhost:6379/0"),
    ("server:\n  limits: {colour: 1}", "2: server.limits.colour: unknown key; known here: body, depth, messages, tools"),
    (PROVIDER + "models: {m: {provider: p, price: {inptu: 1}}}", "2: models.m.price.inptu: unknown key; did you mean input?"),
    ("providers: {p: {kind: openai, timeouts: {total: 9s}}}", "1: providers.p.timeouts.total: unknown key; the time for a whole call is dispatch.total"),
    ("server: {port: 1}\ncache: {}\nserver: {port: 2}", "3: server: comes twice; the first is on line 1"),
    ("server:\n  host: a\n  host: b", "3: server.host: comes twice; the first is on line 2"),
    ("? [a, b]\n: c", "1: a key must be plain text"),
    # what is missing, and names of what is not there
    ("providers:\n  p: {}", "2: providers.p.kind: is required"),
    (PROVIDER + "models: {m: {provider: p, price: {input: 1}}}", "2: models.m.price.output: is required"),
    ("providers: {openai: {kind: openai}}\nmodels:\n  m:\n    provider: opanai", "4: models.m.provider: there is no provider 'opanai'; did you mean openai?"),
    (PROVIDER + "models: {gpt-4o: {provider: p}}\nroutes:\n  auto:\n    tiers:\n      low: [gpt-4o]\n      high: [gpt4o]", "7: routes.auto.tiers.high[0]: there is no model 'gpt4o'; did you mean gpt-4o?"),
    (PROVIDER + "models: {m: {provider: p, fallbacks: [other]}}", "2: models.m.fallbacks[0]: there is no model 'other'"),
    (PROVIDER + "prices: {openai/gpt-4o: {input: 1, output: 2}}", "2: prices.openai/gpt-4o: there is no provider 'openai'"),
    ("providers: {a/b: {kind: openai}}", "1: providers.a/b: a provider's name must not hold a slash"),
    ("routes: {auto: {}}", "1: routes.auto: needs either models or tiers"),
    ("routes: {auto: {models: []}}", "1: routes.auto.models: must not be empty"),
    (PROVIDER + "models: {m: {provider: p}}\nroutes: {r: {models: [m], default_tier: low}}", "3: routes.r.default_tier: needs tiers, and this route has none"),
    # units
    ("cache:\n  exact:\n    ttl: 5 parsecs", "3: cache.exact.ttl: '5 parsecs' is not a duration; write 250ms, 5s, 90m, 24h or 7d"),
    ("cache: {exact: {ttl: 40000d}}", "1: cache.exact.ttl: '40000d' is longer than ten years"),
    ("cache: {exact: {ttl: 0s}}", "1: cache.exact.ttl: must be greater than 0, not '0'"),
    ("server: {limits: {body: 4QB}}", "1: server.limits.body: '4QB' is not a size; write 4096, 512KiB, 4MiB or 1GiB"),
    ("tenant_defaults: {budget: {hour: 1.0000000001}}", "1: tenant_defaults.budget.hour: '1.0000000001' has more than nine decimals; the smallest amount is 0.000000001"),
    ("tenant_defaults: {budget: {hour: yes}}", "1: tenant_defaults.budget.hour: true is not an amount in USD; write 10.00"),
    ("tenant_defaults: {budget: {day: -1}}", "1: tenant_defaults.budget.day: '-1' is not an amount between 0 and 9223372036.854775807"),
    ("tenant_defaults: {budget: {minute: 1}}", "1: tenant_defaults.budget.minute: unknown key; known here: day, hour, month, total, week"),
    ("tenant_defaults:\n  rpm: 1\n  zone: Europe/Atlantis", "3: tenant_defaults.zone: 'Europe/Atlantis' is not a time zone; a zone is written as Europe/Berlin"),
    ("tenant_defaults: {hit_percent: -1}", "1: tenant_defaults.hit_percent: must be at least 0, not '-1'"),
    ("tenant_defaults: {coalesce: on}", "1: tenant_defaults.coalesce: must be semantic, exact or off, not true"),
    ("tenant_defaults: {shares: nobody}", "1: tenant_defaults.shares: must be leader, split or each, not 'nobody'"),
    ("tenant_defaults: {tpm: 0}", "1: tenant_defaults.tpm: must be greater than 0, not '0'"),
    # types
    ("server: {port: http}", "1: server.port: must be a whole number, not 'http'"),
    ("server: {port: 70000}", "1: server.port: must be at most 65535, not '70000'"),
    ("server: 8000", "1: server: must be a mapping of keys to values, not '8000'"),
    ("- server", "1: must be a mapping of keys to values, not a list"),
    ("tenant_defaults: {rpm: 1.5}", "1: tenant_defaults.rpm: must be a whole number, not '1.5'"),
    ("tenant_defaults: {allowed_models: auto}", "1: tenant_defaults.allowed_models: must be a list, not 'auto'"),
    ("telemetry: {log: }", "1: telemetry.log: must be text, not nothing"),
    ("cache: {semantic: {mode: maybe}}", "1: cache.semantic.mode: must be on, shadow or off, not 'maybe'"),
    ("coalesce: {mode: on}", "1: coalesce.mode: must be semantic, exact or off, not true"),
    ("server: {budget_status: 400}", "1: server.budget_status: must be 402 or 429, not '400'"),
    ("providers: {p: {kind: cohere}}", "1: providers.p.kind: must be openai, anthropic or litellm, not 'cohere'"),
    (PROVIDER + "models: {m: {provider: p, capabilities: [tols]}}", "2: models.m.capabilities[0]: must be tools, vision or json, not 'tols'"),
    (PROVIDER + "models: {m: {provider: p}}\ncache: {semantic: {checks: {judge: n}}}", "3: cache.semantic.checks.judge: there is no model 'n'"),
    (PROVIDER + "models: {m: {provider: p}}\ncache: {semantic: {mode: off}}\nroutes: {r: {models: [m], cache: {mode: shadow}}}", "4: routes.r.cache.mode: cache.semantic.mode is off for all; turn it on there, and off where it is not wanted"),
    (PROVIDER + "models: {m: {provider: p}}\nroutes: {r: {models: [m], cache: {strategy: bold}}}", "3: routes.r.cache.strategy: must be aggressive, standard or bypass, not 'bold'"),
    ("cache: {semantic: {max_error_rate: 2}}", "1: cache.semantic.max_error_rate: must be at most 0.5, not '2'"),
    ("cache: {semantic: {embedder: minlm}}", "1: cache.semantic.embedder: must be minilm, not 'minlm'"),
    ("cache: {semantic: {embedder: [1]}}", "1: cache.semantic.embedder: must be a mapping of keys to values, not a list"),
    ("cache: {semantic: {embedder: {provder: p}}}", "1: cache.semantic.embedder.provder: unknown key; did you mean provider?"),
    ("cache: {semantic: {embedder: {provider: p, model: m, dimensions: 8}}}", "1: cache.semantic.embedder.provider: there is no provider 'p'"),
    # secrets are never repeated
    ("providers: {p: {kind: openai, api_key: [sk-secret]}}", "1: providers.p.api_key: must be text"),
    ("storage: {url: 'mysql://root:secret@db'}", "1: storage.url: must be a storage URL such as sqlite:///headgate.db or postgresql://user@host/headgate"),
    ("storage: {url: 'postgresql:///x'}", "1: storage.url: must be a storage URL such as postgresql://user@host:5432/headgate"),
    # addresses
    ("providers: {p: {kind: openai, base_url: 'http://localhost:1/v1'}}", "1: providers.p.base_url: 'localhost' is this machine; set allow_private to allow it"),
    ("providers: {p: {kind: openai, base_url: 'ftp://x'}}", "1: providers.p.base_url: A base URL must start with http:// or https://"),
    # variables
    ("providers:\n  p:\n    kind: openai\n    api_key: ${NOT_SET}", "4: providers.p.api_key: the environment variable NOT_SET is not set"),
    ("server: {host: '${unclosed'}", "1: server.host: '${' must be followed by a variable's name and '}'; write $${ for the text itself"),
    # YAML itself
    ("server:\n\tport: 1", "2: a tab cannot indent YAML; use spaces"),
    ("server: [", "1: not valid YAML: expected the node content, but found '<stream end>'"),
    ("server: {port: ${PORT}}", "1: not valid YAML: expected ',' or '}', but got '{'; inside braces and brackets a ${...} needs quotes"),
    ("server: {port: *p}", "1: there is no anchor 'p'"),
    ("server: &s {limits: *s}", "1: server.limits: an anchor must not contain itself"),
    ("server: !!python/object:os.system {}", "1: server: the tag tag:yaml.org,2002:python/object:os.system is not allowed"),
    ("server: {host: \x01}", "1: the character U+0001 is not allowed"),
    ("a: 1\n---\nb: 2", "2: not valid YAML: but found another document"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), WRONG, ids=[line for _, line in WRONG])
def test_a_mistake_is_told_in_one_line_that_says_where_and_why(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as told:
        parse_config(text, env={})
    assert str(told.value) == f"headgate.yaml:{line}"


def test_of_several_mistakes_the_first_in_the_file_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^headgate.yaml:2: server.port"):
        parse_config("server:\n  port: x\ncache: {exact: {ttl: y}}\nprovidres: {}", env={})


def test_the_example_of_the_contract_is_accepted() -> None:
    config = parse_config(CONTRACT, env={"OPENAI_API_KEY": "sk-real"})
    key = config.providers["openai"].api_key
    assert key is not None
    assert key.get_secret_value() == "sk-real"
    assert config.routes["auto"].tiers == {
        "low": ("gpt-4o-mini",),
        "medium": ("gpt-4o-mini",),
        "high": ("gpt-4o", "claude-3-5-sonnet"),
    }
    assert config.cache.exact.ttl == 86_400
    assert config.tenant_defaults.policy() == Policy(rpm=120, concurrency=50)
    assert config.tenant_defaults.caps() == Caps(hour=10 * 10**9)
    price = config.models["claude-3-5-sonnet"].price
    assert price is not None
    assert price.price() == Price(input=150_000_000, output=600_000_000)
    assert not config.simulated


def test_the_defaults_are_those_of_the_contract() -> None:
    config = Config()
    assert (config.tenant_defaults.rpm, config.tenant_defaults.concurrency) == (120, 50)
    assert config.tenant_defaults.caps() == Caps(hour=10 * 10**9)
    assert (config.tenant_defaults.tpm, config.tenant_defaults.zone) == (None, "UTC")
    assert config.tenant_defaults.hit_percent == 0
    assert (config.tenant_defaults.coalesce, config.tenant_defaults.shares) == ("semantic", "leader")
    assert config.tenant_defaults.policy() == Policy()
    assert (config.cache.exact.ttl, config.cache.semantic.ttl) == (86_400, 3_600)
    assert (config.cache.semantic.max_error_rate, config.cache.semantic.mode) == (0.01, "on")
    assert (config.cache.exact.stale, config.cache.refusals) == (3_600, 30)
    assert (config.cache.bytes_per_tenant, config.cache.bytes) == (256 * 2**20, 2**30)
    checks = config.cache.semantic.checks
    assert (checks.budget, checks.judge) == (10**9, "embedding")
    assert 0 < checks.share <= 0.02
    assert (config.coalesce.mode, config.coalesce.max_followers) == ("semantic", 1_000)
    assert config.dispatch.total == 600
    limits = config.server.limits
    assert (limits.body, limits.messages, limits.tools, limits.depth) == (4 * 2**20, 512, 128, 64)
    assert config.simulated


@pytest.mark.parametrize(
    ("written", "mode"),
    [
        ("on", "on"), ("off", "off"), ("true", "on"), ("False", "off"), ("yes", "on"), ("NO", "off"),
        ("'on'", "on"), ('"off"', "off"), ("'true'", "on"), ("On", "on"), ("'${MODE}'", "off"),
    ],
)  # fmt: skip
def test_on_and_off_are_understood_however_they_are_written(written: str, mode: str) -> None:
    text = f"cache: {{exact: {{mode: {written}}}, semantic: {{mode: {written}}}}}"
    config = parse_config(text, env={"MODE": "off"})
    assert (config.cache.exact.mode, config.cache.semantic.mode) == (mode, mode)


def test_a_bare_off_is_a_word_where_words_are_expected() -> None:
    config = parse_config("coalesce: {mode: off}\ntelemetry: {log: off}\ncache: {semantic: {mode: shadow}}", env={})
    assert (config.coalesce.mode, config.telemetry.log, config.cache.semantic.mode) == ("off", "off", "shadow")


def test_money_is_read_from_its_text_and_never_through_a_float() -> None:
    """0.1 + 0.2 as floats would not be 0.3; nine decimals are exact."""
    config = parse_config(
        "tenant_defaults: {budget: {hour: 1234567.123456789, day: none, month: null, total: 7}}", env={}
    )
    assert config.tenant_defaults.caps() == Caps(hour=1234567_123456789, total=7 * 10**9)


def test_variables_are_filled_in_with_defaults_and_an_escape() -> None:
    text = "server: {port: '${PORT:-8123}', host: '${A}${B:-b}${EMPTY:-c}'}\ntelemetry: {log: '$${A} $$5 ${EMPTY}x'}"
    config = parse_config(text, env={"A": "a", "EMPTY": ""})
    assert (config.server.port, config.server.host, config.telemetry.log) == (8123, "abc", "${A} $5 x")


def test_anchors_and_merge_keys_work_and_may_be_overridden() -> None:
    text = """
providers:
  one: &one {kind: openai, allow_private: true, base_url: "http://localhost:1/v1"}
  two: {<<: *one, base_url: "http://localhost:2/v1"}
"""
    config = parse_config(text, env={})
    assert [each.base_url for each in config.providers.values()] == ["http://localhost:1/v1", "http://localhost:2/v1"]


def test_dates_and_numbers_with_a_leading_zero_stay_names() -> None:
    config = parse_config(
        PROVIDER + "models: {2024-08-06: {provider: p, model: 0123}, 4: {provider: p, model: 4.10}}", env={}
    )
    assert {name: each.model for name, each in config.models.items()} == {"2024-08-06": "0123", "4": "4.10"}


def test_each_kind_of_provider_knows_its_own_address() -> None:
    config = parse_config("providers: {a: {kind: anthropic}, o: {kind: openai}}", env={})
    assert [each.base_url for each in config.providers.values()] == [
        "https://api.anthropic.com/v1",
        "https://api.openai.com/v1",
    ]


def test_the_default_has_a_provider_for_each_key_in_the_environment() -> None:
    config = Config.default({"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b"})
    assert set(config.providers) == {"openai", "anthropic"}
    tiers = config.routes["auto"].tiers
    assert tiers is not None
    assert tiers["low"] == ("gpt-4o-mini", "claude-haiku-4-5")
    assert tiers["high"] == ("gpt-4o", "claude-sonnet-4-5")
    assert set(Config.default({"ANTHROPIC_API_KEY": "b"}).providers) == {"anthropic"}


@pytest.mark.parametrize("env", [{}, {"OPENAI_API_KEY": ""}])
def test_without_a_key_the_default_is_the_simulated_provider(env: dict[str, str]) -> None:
    config = Config.default(env)
    assert config.simulated
    assert (config.models, config.routes) == ({}, {})


def test_a_file_that_names_no_provider_model_or_route_gets_those_of_the_environment() -> None:
    text = "providers:\nmodels:\ntenant_defaults: {rpm: 7}"
    assert set(parse_config(text.removeprefix("providers:\nmodels:\n"), env={"OPENAI_API_KEY": "a"}).providers) == {
        "openai"
    }
    assert set(parse_config(text, env={"OPENAI_API_KEY": "a"}).providers) == {"openai"}
    assert parse_config("", env={}).simulated


def test_a_provider_may_turn_questions_into_vectors() -> None:
    embedder = "{provider: p, model: text-embedding-3-small, dimensions: 1536}"
    config = parse_config(PROVIDER + f"cache: {{semantic: {{embedder: {embedder}}}}}", env={})
    chosen = config.cache.semantic.embedder
    assert chosen != "minilm"
    assert (chosen.provider, chosen.model, chosen.dimensions) == ("p", "text-embedding-3-small", 1536)


def test_a_secret_shows_neither_in_text_nor_in_json() -> None:
    text = "providers: {p: {kind: openai, api_key: sk-secret, headers: {x-token: tok-secret}}}"
    config = parse_config(text, env={})
    assert "secret" not in repr(config)
    assert "secret" not in str(config.model_dump(mode="json"))


def test_what_show_prints_reads_as_the_same_configuration() -> None:
    config = parse_config(CONTRACT, env={"OPENAI_API_KEY": "sk-real"})
    shown = yaml.safe_dump(config.model_dump(mode="json"))
    again = parse_config(shown, env={})
    assert again.model_dump(mode="json") == config.model_dump(mode="json")
    assert again.tenant_defaults == config.tenant_defaults


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////var/lib/headgate.db", "sqlite:////var/lib/headgate.db"),
        (
            "postgresql://me:p@ss/w@db:5432/headgate?sslmode=require&password=x",
            "postgresql://me:**********@db:5432/headgate",
        ),
        ("postgresql://me:secret@db/headgate", "postgresql://me:**********@db/headgate"),
        ("postgresql://db/headgate", "postgresql://db/headgate"),
    ],
)
def test_the_password_of_a_store_is_not_shown(url: str, shown: str) -> None:
    assert masked(SecretStr(url)) == shown


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().server.port = 1  # type: ignore[misc]


def test_the_schema_describes_every_key_and_accepts_units() -> None:
    schema = Config.json_schema()
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["additionalProperties"] is False
    ttl = schema["$defs"]["ExactConfig"]["properties"]["ttl"]
    assert (ttl["type"], ttl["examples"]) == (["string", "number"], ["24h"])
    described = [field for section in schema["$defs"].values() for field in section["properties"].values()]
    assert all("description" in field or "$ref" in field for field in described)


def test_the_database_lies_in_the_data_directory_unless_its_path_is_absolute() -> None:
    assert Config().storage.path(Path("there")) == Path("there/headgate.db")
    absolute = parse_config("storage: {url: 'sqlite:////var/x.db'}", env={})
    assert absolute.storage.path(Path("there")) == Path("/var/x.db")


def test_files_are_found_and_faults_of_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(None, {}).simulated
    Path("headgate.yaml").write_text("server: {port: 1234}")
    assert find_config(None, {}).server.port == 1234
    Path("other.yaml").write_bytes(b"server: \xff")
    for path, line in (
        (Path("nowhere.yaml"), "nowhere.yaml: there is no such file"),
        (Path("other.yaml"), "other.yaml: not UTF-8 text (byte 8)"),
        (tmp_path, f"{tmp_path}: Is a directory"),
    ):
        with pytest.raises(ConfigError) as told:
            load_config(path, {})
        assert str(told.value) == line


@given(st.integers(0, LONGEST * 1000))
def test_every_duration_in_milliseconds_reads_as_it_was_written(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert seconds_of(duration_text(seconds)) == pytest.approx(seconds, abs=1e-9)


@given(st.integers(0, 2**63 - 1))
def test_every_size_reads_as_it_was_written(size: int) -> None:
    assert bytes_of(size_text(size)) == size


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.decimals(), st.lists(st.text())))
def test_whatever_is_written_for_a_unit_is_read_or_refused(value: object) -> None:
    for read in (seconds_of, bytes_of):
        with contextlib.suppress(ValueError):
            assert read(value) >= 0


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("24h", 86_400),
        ("1d", 86_400),
        ("90m", 5_400),
        ("5s", 5),
        ("250ms", 0.25),
        (5, 5),
        (Decimal("1.5"), 1.5),
        ("1.5 h", 5_400),
    ],
)
def test_durations_have_the_usual_units(written: object, seconds: float) -> None:
    assert seconds_of(written) == seconds


@pytest.mark.parametrize("written", ["", "h", "-5s", "1h30m", "5 S", "1e3", "٣s", True, None, [5]])
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds_of(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [("4MiB", 4 * 2**20), ("1GB", 10**9), ("512 kib", 2**19), (4096, 4096), ("1.5KiB", 1536), ("7B", 7)],
)
def test_sizes_have_the_usual_units(written: object, size: int) -> None:
    assert bytes_of(written) == size


def outcome(text: str) -> str:
    """What is told of a text; nothing when it is a configuration."""
    try:
        parse_config(text, env={})
    except ConfigError as error:
        return str(error)
    return ""


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_one_line(text: str) -> None:
    told = outcome(text)
    assert told == "" or told.startswith("headgate.yaml:")
    assert "\n" not in told


KEYS = st.sampled_from(
    ["providers", "models", "server", "cache", "exact", "ttl", "kind", "p", "routes", "tiers", "low", "<<"]
)
TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["openai", "5s", "${X}", "m", "auto"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


@given(TREES)
def test_any_tree_is_a_configuration_or_one_line(tree: object) -> None:
    assert "\n" not in outcome(yaml.safe_dump(tree))


def test_a_route_says_of_the_cache_what_differs_from_the_rest() -> None:
    written = "{exact_ttl: 5m, ttl: 1m, mode: off, max_error_rate: 0.002, strategy: aggressive}"
    models = PROVIDER + "models: {m: {provider: p}}\n"
    config = parse_config(models + f"routes: {{r: {{models: [m], cache: {written}}}, s: {{models: [m]}}}}", env={})
    said, silent = config.routes["r"].cache, config.routes["s"].cache
    assert (said.exact_ttl, said.ttl, said.mode) == (300, 60, "off")
    assert (said.max_error_rate, said.strategy) == (0.002, "aggressive")
    assert (silent.exact_ttl, silent.ttl, silent.mode, silent.max_error_rate) == (None, None, None, None)
    assert silent.strategy == "standard"


def test_a_judge_may_be_a_model() -> None:
    models = PROVIDER + "models: {m: {provider: p}}\n"
    config = parse_config(models + "cache: {semantic: {checks: {judge: m, share: 0, budget: 0.50}}}", env={})
    checks = config.cache.semantic.checks
    assert (checks.judge, checks.share, checks.budget) == ("m", 0, 500_000_000)
