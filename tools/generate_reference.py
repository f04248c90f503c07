"""Write docs/reference: config.md from the configuration's schema, cli.md from the commands, errors.md from the error classes and
metrics.md from what a scrape shows.

    python tools/generate_reference.py

A test fails when one of them is older than what it describes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from headgate.cli.main import main as headgate
from headgate.config import Config
from headgate.model.errors import GatewayError, Rejected
from headgate.model.money import NANO_PER_USD, Usage
from headgate.model.record import Attempt, CallRecord
from headgate.telemetry.metrics import PrometheusSink
from headgate.telemetry.series import GAUGES, TOTALS

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
WRITTEN = "<!-- Written by tools/generate_reference.py; change the source, not this page. -->"

UNITS = {"24h": "duration", "4MiB": "size", "10.00": "USD"}
"""What a unit is called, by the example that its schema gives."""

CONFIG_INTRO = f"""# Configuration

{WRITTEN}

`headgate serve` reads `headgate.yaml` in the working directory, or the file that `--config` names. Without a file, and in a file
without `providers`, `models` and `routes`, these come from `OPENAI_API_KEY` and `ANTHROPIC_API_KEY`; with neither, a simulated provider
answers.

```yaml
{{example}}```

* **Mistakes** are told in one line, with the place: `headgate.yaml:12: providers.openai.base_ulr: unknown key; did you mean base_url?`
  Unknown keys and keys that come twice are errors. `headgate config check` tells without starting anything.
* **Variables**: `${{{{NAME}}}}` in a text is replaced from the environment and must be set; `${{{{NAME:-default}}}}` need not be. `$$` is one dollar
  sign. Inside braces and brackets a variable needs quotes, as YAML demands.
* **Durations** are `250ms`, `5s`, `90m`, `24h`, `7d`; a plain number is seconds. **Sizes** are `4096`, `512KiB`, `4MiB`, `1GB`.
  **Amounts** are US dollars with up to nine decimals, with or without quotes; they never pass through a binary fraction.
* `on`, `off`, `true`, `false`, with or without quotes, all mean what they say.
* **Editors** complete and check the file with the schema that `headgate config schema` prints.
* `headgate config show` prints the whole configuration, defaults included and secrets masked.
"""

CLI_INTRO = f"""# Command line

{WRITTEN}

Commands that print something take `--json`. Errors are one line on standard error. Exit codes: 0 well, 1 failed, 2 used wrongly
or a configuration that cannot be used.

Commands on tenants, keys, budgets and usage work on the data directory itself, also while a server runs on it; the server sees
changes within two seconds.
"""


ERRORS_INTRO = f"""# Errors

{WRITTEN}

Every error has OpenAI's shape, `{{"error": {{"message", "type", "param", "code"}}}}`, under the status of this table; inside a stream that
has begun it is an event, and no `[DONE]` follows. Each class is in `src/headgate/model/errors.py`.

*Again* says whether the same call may succeed later. Errors with 429 or 503 carry `Retry-After`; where a client's SDK would guess
wrong, `x-should-retry` tells it.

| error | status | code | type | again | when |
|---|---|---|---|---|---|"""

METRICS_INTRO = f"""# Metrics

{WRITTEN}

`GET /metrics` shows these in Prometheus' text format. No label holds a user, a prompt or a name that callers can invent: a route or
deployment that does not exist, and what is beyond the first 1,000 tenants, 200 models or 200 reasons, is counted as `other`.
Attempts, tokens and cost are counted once for each provider call, however many callers shared it.

| metric | kind | labels | meaning |
|---|---|---|---|"""

SEEN = CallRecord(
    id="", at=0, tenant="t", route="r", status=200, source="live", cache="miss", deployment="d", route_reason="plain", saved=1,
    attempts=(
        Attempt(deployment="e", outcome="upstream_timeout", seconds=0, priced=False, usage=Usage(prompt_tokens=1)),
        Attempt(deployment="d", outcome="ok", seconds=0, first_token=0),
    ),
    usage=Usage(prompt_tokens=1), cost=NANO_PER_USD, lookup=0,
)  # fmt: skip
"""A call that is counted by every metric, so that each one shows its labels."""


GAUGE_LABELS = {
    "headgate_billing_events": ("sink", "state"),
    "headgate_billing_oldest_seconds": ("sink",),
    "headgate_breaker_state": ("deployment",),
    "headgate_budget_used_ratio": ("tenant", "window"),
    "headgate_cache_drift": ("state",),
    "headgate_cache_failures_total": ("part",),
    "headgate_jobs": ("tenant_lane", "state"),
}
"""What is read at each scrape gets its labels from assembly, when a server starts."""


def config_reference() -> str:
    """The page on the configuration file."""
    schema = Config.json_schema()
    example = (FOLDER / "headgate.yaml").read_text(encoding="utf-8")
    parts = [CONFIG_INTRO.format(example=example), *_sections(schema, schema["$defs"])]
    return "\n".join(parts)


def _sections(schema: dict[str, Any], defs: dict[str, Any], place: str = "") -> Iterator[str]:
    """A table for this mapping, then one for each mapping in it."""
    if place:
        yield f"## `{place}`\n\n{schema['description']}\n"
    else:
        yield "## Sections\n"
    yield "| key | value | default | meaning |\n|---|---|---|---|"
    inner = []
    for key, field in schema["properties"].items():
        found = _held(field, defs)
        values = [_value(field)] if not found or "oneOf" in field else []
        for section, follows in found:
            where = f"{place}.{key}{follows}".lstrip(".")
            if len(found) > 1:
                where = f"{where} with {section['required'][0]}"
            inner.append((section, where))
            values.append(f"[a section](#{_anchor(where)})")
        # pydantic leaves a description out that repeats the section's own.
        meaning = field["description"] if not found else field.get("description", found[0][0]["description"])
        default = _default(key, field, schema, section=bool(found))
        yield f"| `{key}` | {' or '.join(values)} | {default} | {_cell(meaning)} |"
    yield ""
    for section, where in inner:
        yield from _sections(section, defs, where)


def _held(field: dict[str, Any], defs: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """The mappings that a field may hold, and what follows its name: nothing, a name of the user's own, or the mark of a list."""
    found = []
    for each in [field, *field.get("anyOf", []), *field.get("oneOf", [])]:
        if "$ref" in each:
            found.append((defs[each["$ref"].rpartition("/")[2]], ""))
        for holds, follows in (("additionalProperties", ".<name>"), ("items", "[]")):
            inner = each.get(holds)
            if isinstance(inner, dict) and "$ref" in inner:
                found.append((defs[inner["$ref"].rpartition("/")[2]], follows))
    return found


def _value(field: dict[str, Any]) -> str:
    """What may be written, in a few words."""
    if "anyOf" in field or "oneOf" in field:
        members = field["anyOf" if "anyOf" in field else "oneOf"]
        return " or ".join(_value(each) for each in members if each.get("type") != "null" and "$ref" not in each)
    if "enum" in field or "const" in field:
        return ", ".join(f"`{choice}`" for choice in field.get("enum", [field.get("const")]))
    if "examples" in field:
        return UNITS[field["examples"][0]]
    if field.get("type") == "array":
        return f"list of {_value(field['items'])}"
    if field.get("type") == "object":
        keys = field.get("propertyNames", {}).get("enum")
        named = ", ".join(f"`{key}`" for key in keys) if keys else "names"
        return f"mapping of {named} to {_value(field['additionalProperties'])}"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`"}
    return words[field["type"]] + _bounds(field)


def _bounds(field: dict[str, Any]) -> str:
    low = field["exclusiveMinimum"] + 1 if "exclusiveMinimum" in field else field.get("minimum")
    high = field.get("maximum")
    if low is None or (low <= 1 and high is None):
        return ""
    return f", {low} to {high}" if high is not None else f", from {low}"


def _default(key: str, field: dict[str, Any], schema: dict[str, Any], *, section: bool) -> str:
    if key in schema.get("required", ()):
        return "required"
    default = field.get("default")
    if default is None or default in ({}, [], "") or (section and isinstance(default, dict)):
        return ""
    if isinstance(default, list):
        return f"`[{', '.join(default)}]`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def cli_reference() -> str:
    """The page on the commands."""
    return "\n".join([CLI_INTRO, *_commands(headgate, click.Context(headgate, info_name="headgate"))])


def _commands(command: click.Command, context: click.Context) -> Iterator[str]:
    """A command's usage, explanation, options and examples, then those of its subcommands."""
    path = context.command_path
    inner = []
    if isinstance(command, click.Group):
        names = command.list_commands(context)
        inner = [(name, found) for name in names if (found := command.get_command(context, name)) is not None]
    yield f"## `{path}`\n"
    prose, examples = _told(command)
    yield f"{prose}\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```\n{path} {usage}\n```\n"
    rows = [record for each in command.get_params(context) if (record := each.get_help_record(context)) is not None]
    rows = [(names, meaning) for names, meaning in rows if meaning and "--help" not in names]
    if rows:
        yield "| option | meaning |\n|---|---|"
        yield from (f"| `{_cell(names)}` | {_cell(meaning)} |" for names, meaning in rows)
        yield ""
    if examples:
        yield f"```sh\n{examples}\n```\n"
    for name, found in inner:
        yield from _commands(found, click.Context(found, info_name=name, parent=context))


def _told(command: click.Command) -> tuple[str, str]:
    """A command's explanation, and its example lines. Blocks that keep their line breaks begin with a backspace."""
    whole = "\n\n".join(inspect.cleandoc(text) for text in (command.help, command.epilog) if text)
    prose, kept = [], []
    for block in whole.split("\n\n"):
        if not block.startswith("\b"):
            prose.append(" ".join(block.split()))
            continue
        lines = block.splitlines()[1:]
        if lines[0].startswith(("Example", "A first day")):
            kept.append(inspect.cleandoc("\n".join(["", *lines[1:]])))
        else:
            prose.append("```\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(prose), "\n\n".join(kept)


def error_reference() -> str:
    """The page on the errors."""
    return "\n".join([ERRORS_INTRO, *map(_error_row, _classes(GatewayError)), ""])


def _classes(root: type[GatewayError]) -> Iterator[type[GatewayError]]:
    """All classes below this one, each before those derived from it."""
    for each in root.__subclasses__():
        yield each
        yield from _classes(each)


def _error_row(error: type[GatewayError]) -> str:
    # The first paragraph is for callers, and one that begins with the code; the others are for those who raise it.
    first, *more = inspect.cleandoc(error.__doc__ or "").split("\n\n")
    meaning = _cell(" ".join(" ".join([first, *(text for text in more if text.startswith(f"`{error.code}`"))]).split()))
    status = "the provider's" if error is Rejected else str(error.status)
    code = f"`{error.code}`" if error.code else ""
    return (
        f"| {error.__name__} | {status} | {code} | `{error.type}` | {'yes' if error.retryable else 'no'} | {meaning} |"
    )


def metric_reference() -> str:
    """The page on the metrics."""
    sink = PrometheusSink(routes=["r"], deployments=["d", "e"])
    for source in ("live", "exact"):
        sink.record(msgspec.structs.replace(SEEN, source=source))
    sink.flight(exact=1, semantic=1, abandoned=True, failed=True, alone=True)
    sink.budget_alert("t", "hour", 50)
    sink.spend_rate_alert("t")
    sink.shadow_check("right")
    sink.job_notice("delivered")
    sink.close()
    rows = []
    for family in sink.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label: None for sample in family.samples for label in sample.labels if label != "le"}
        rows.append(_metric_row(name, family.type, labels, family.documentation))
    for kind, readings in (("gauge", GAUGES), ("counter", TOTALS)):
        rows += [_metric_row(name, kind, GAUGE_LABELS.get(name, ()), text) for name, text in readings.items()]
    return "\n".join([METRICS_INTRO, *sorted(rows), ""])


def _metric_row(name: str, kind: str, labels: Iterable[str], meaning: str) -> str:
    return f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {_cell(meaning)} |"


PAGES = {
    "config.md": config_reference,
    "cli.md": cli_reference,
    "errors.md": error_reference,
    "metrics.md": metric_reference,
}


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
