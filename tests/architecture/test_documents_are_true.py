"""What the documents say of the code, held against the code."""

from __future__ import annotations

import ast
import re
import sys
import tomllib

import click
import pytest

from headgate.config import Config
from headgate.model import errors
from tests.architecture.tree import ROOT, SRC, classes, modules, named, text, texts
from tools.generate_reference import PAGES, config_reference

DOCS = ROOT / "docs"
ARCHITECTURE = text(ROOT / "ARCHITECTURE.md")
INTERNAL = {
    "Census": "what budgets ask of tenants",
    "Counted": "what is spent and held on one scope, whoever counts it",
    "Judge": "whom learning asks whether two answers say the same",
    "Progress": "how the demo's command shows its bars",
    "Scribe": "whom the cache's shelf tells what is to be written down",
    "Size": "what routing is told of how long a prompt is",
    "Tally": "a ledger's balances",
    "Wire": "the simulator's two formats",
}
"""Protocols that nobody plugs into."""

CONFORMANCE = {
    "Directory": "directory",
    "Counters": "counters",
    "Decider": "decider",
    "Embedder": "embedder",
    "Reader": "reader",
    "CacheStore": "cache_store",
    "SharedStore": "cache_store",
    "LabelLog": "label_log",
    "OutcomeLog": "outcome_log",
    "Verdict": "verdict_suite",
    "Ledger": "ledger",
    "DurableLedger": "ledger",
    "Till": "till",
    "SharedJournal": "ledger",
    "JournalTail": "journal_tail",
    "Book": "ledger",
    "Statements": "ledger",
    "Changes": "ledger",
    "Repricings": "ledger",
    "Outbox": "outbox",
    "JobStore": "job_store",
    "Rows": "label_log",
    "Exporter": "exporter",
    "Provider": "provider",
    "Relay": "relay",
    "Sink": "sink",
}


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_as_its_source_says(name: str) -> None:
    """Run `python tools/generate_reference.py` when this fails."""
    assert text(DOCS / "reference" / name) == PAGES[name]()


def test_every_error_class_has_a_row() -> None:
    page = text(DOCS / "reference" / "errors.md")
    named_there = set(re.findall(r"^\| (\w+) \|", page, re.MULTILINE)) - {"error"}
    derived = {
        name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, errors.GatewayError)
    }
    assert named_there == derived - {"GatewayError"}


def test_every_field_of_the_configuration_is_described() -> None:
    page = config_reference()

    def walk(schema: dict, where: str) -> None:
        for key, field in schema.get("properties", {}).items():
            assert f"| `{key}` |" in page, f"{where}.{key}"
            assert field.get("description") or "$ref" in str(field), f"{where}.{key} has no description"

    schema = Config.json_schema()
    walk(schema, "")
    for name, section in schema["$defs"].items():
        walk(section, name)


def test_every_decision_is_linked_and_numbered_once() -> None:
    index = text(DOCS / "index.md")
    numbers = []
    for path in sorted((DOCS / "adr").glob("*.md")):
        numbers.append(path.name[:4])
        assert f"(adr/{path.name})" in index, path.name
        assert text(path).startswith(f"# {int(path.name[:4])}. "), path.name
    assert len(numbers) == len(set(numbers))


def test_every_link_between_documents_leads_somewhere() -> None:
    dead = []
    for path in texts():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)", text(path)):
            if "://" not in target and not (path.parent / target).exists():
                dead.append(f"{named(path)}: {target}")
    assert dead == []


def test_files_that_documents_name_exist() -> None:
    """`docs/adr/0004`, `tests/faults`, `tools/build_trace.py`: what looks like a path of the repository is one."""
    dead = []
    for path in texts():
        if path.suffix not in {".md", ".py", ".toml"}:
            continue
        for target in re.findall(r"(?<![\w/.-])((?:docs|tests|tools|benchmarks)/[\w/.-]*\w)", text(path)):
            if "results" in target or (ROOT / target).exists() or list(ROOT.glob(f"{target}*.md")):
                continue
            dead.append(f"{named(path)}: {target}")
    assert dead == []


def test_every_protocol_is_listed_and_has_a_suite_for_its_adapters() -> None:
    found = {
        node.name: path
        for path in modules()
        for node in classes(path)
        if any(isinstance(parent, ast.Name) and parent.id == "Protocol" for parent in node.bases)
    }
    listed = set(
        re.findall(r"^\| `(\w+)`", ARCHITECTURE.partition("## Protocols")[2].partition("\n## ")[0], re.MULTILINE)
    )
    assert set(found) - set(INTERNAL) == listed == set(CONFORMANCE)
    suites = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "conformance").glob("test_*.py")}
    missing = [name for name in listed if CONFORMANCE[name] not in suites]
    assert missing == []


def test_every_room_is_described() -> None:
    rooms = ARCHITECTURE.partition("## Rooms")[2].partition("\n## ")[0]
    for path in SRC.iterdir():
        if path.suffix == ".py" and not path.name.startswith("__"):
            assert f"`{path.name}`" in rooms, path.name
        elif path.is_dir() and path.name != "__pycache__":
            assert f"`{path.name}/`" in rooms, path.name


@pytest.mark.parametrize("room", ["budget", "cache", "coalesce"])
def test_every_file_of_a_large_room_is_described(room: str) -> None:
    table = ARCHITECTURE.partition(f"## The {room} room")[2].partition("\n## ")[0]
    for path in (SRC / room).iterdir():
        if path.suffix == ".py" and not path.name.startswith("__"):
            assert f"`{path.name}`" in table, path.name


def test_the_layers_of_the_document_are_those_that_are_checked() -> None:
    project = tomllib.loads(text(ROOT / "pyproject.toml"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    told = [
        re.sub(r"[`\s]", "", line)
        for line in re.findall(r"^    (.+)$", ARCHITECTURE.partition("## Who may")[2], re.MULTILINE)
    ]
    assert [layer.replace(" ", "") for layer in contract["layers"]] == told


def test_the_two_lines_of_the_document_are_steps_of_the_code() -> None:
    """Each step is named as `room.verb(`, and the pipeline calls it."""
    code = text(SRC / "pipeline.py")
    steps = re.findall(
        r"^    \w+ +(?:async with )?(\w+\.)?(\w+)\(", ARCHITECTURE.partition("```")[2].partition("```")[0], re.MULTILINE
    )
    assert len(steps) > 10
    for room, verb in steps:
        assert re.search(rf"\b(self\.)?{re.escape(room)}{verb}\(", code), room + verb


def test_every_command_is_in_the_reference() -> None:
    from headgate.cli.main import main

    page = text(DOCS / "reference" / "cli.md")
    for name in main.list_commands(click.Context(main)):
        assert f"## `headgate {name}`" in page


def test_import_rules_are_checked_once_and_by_make() -> None:
    recipe = text(ROOT / "Makefile").partition("\ntest:")[2].partition("\n\n")[0]
    assert [recipe.count(tool) for tool in ("ruff check", "format --check", "mypy", "lint-imports", "pytest")] == [
        1
    ] * 5
    assert "make test" in text(ROOT / ".ci" / "run")


def test_what_is_imported_is_declared() -> None:
    """A package that the code names is a dependency of the project, not of a dependency."""
    project = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    extras = [line for name, extra in project["optional-dependencies"].items() if name != "dev" for line in extra]
    lines = [*project["dependencies"], *extras]
    declared = {re.split(r"[<>=\[]", line)[0].lower().replace("-", "_") for line in lines}
    called = {"yaml": "pyyaml", "pydantic_core": "pydantic"}
    for path in modules():
        for name in re.findall(r"^\s*(?:from|import) (\w+)", text(path), re.MULTILINE):
            if name in {"headgate", "__future__"} or name in sys.stdlib_module_names:
                continue
            assert called.get(name, name) in declared, f"{named(path)} imports {name}"
