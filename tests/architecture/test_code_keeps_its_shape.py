"""What the linters do not see: sizes, names, and what no file may hold."""

from __future__ import annotations

import ast
import re

from tests.architecture.tree import ROOT, SRC, classes, functions, modules, named, text, texts, tree

LONGEST_FILE = 400
LONGEST_FUNCTION = 60

# Put together here, so that this file does not hold what it forbids.
MARKS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "W" + "IP"]) + r")\b")
UNFINISHED = re.compile(
    r"\b(" + "|".join(["Not" + "Implemented(Error)?", "place" + "holder", "st" + "ub"]) + r")\b", re.IGNORECASE
)
MACHINE_PATHS = re.compile("(?<![\\w.])/" + "(work|root|tmp|home)/")
REGISTRIES = re.compile(
    "|".join([r"pypi\." + "org", "files" + r"\.pythonhosted", "registry" + r"\.npmjs", "--(extra-)?index-" + "url"])
)
PATCHING = re.compile(r"unittest" + r"\.mock|monkeypatch\.setattr")
AVOIDED = frozenset(
    {"manager", "helper", "helpers", "util", "utils", "data", "info", "context", "process", "common", "base"}
)


def test_no_file_of_the_package_is_longer_than_four_hundred_lines() -> None:
    sizes = {named(path): len(text(path).splitlines()) for path in modules()}
    assert {name: lines for name, lines in sizes.items() if lines > LONGEST_FILE} == {}


def test_no_function_of_the_package_is_longer_than_sixty_lines() -> None:
    """The docstring is not counted."""
    found = {}
    for path in modules():
        for node in functions(path):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            lines = (node.end_lineno or first.lineno) - first.lineno + 1
            if lines > LONGEST_FUNCTION:
                found[f"{named(path)}:{node.name}"] = lines
    assert found == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [named(path) for path in modules() if text(path).strip() and not ast.get_docstring(tree(path))]
    assert silent == []


def test_nothing_is_left_to_be_done() -> None:
    found = [named(path) for path in texts() if path.suffix == ".py" and (MARKS.search(text(path)))]
    found += [named(path) for path in modules() if UNFINISHED.search(text(path))]
    assert found == []


def test_no_file_names_a_place_of_one_machine() -> None:
    """Locks neither: each machine installs from the index of its own."""
    assert [named(path) for path in modules() if MACHINE_PATHS.search(text(path))] == []
    assert [named(path) for path in texts() if REGISTRIES.search(text(path))] == []


def test_nothing_inside_is_replaced_for_a_test() -> None:
    """Fakes are public code, such as headgate.providers.scripted; environment and folder of a test may be set."""
    own = ROOT / "tests" / "architecture"
    tests = [
        path
        for path in texts()
        if path.suffix == ".py" and path.is_relative_to(ROOT / "tests") and own not in path.parents
    ]
    assert [named(path) for path in tests if PATCHING.search(text(path))] == []


def test_names_say_something() -> None:
    """Words that docs/glossary.md avoids name no module and no class; a context window is what providers call it."""
    found = [named(path) for path in modules() if AVOIDED & set(path.relative_to(SRC).with_suffix("").parts)]
    for path in modules():
        for node in classes(path):
            words = {word.lower() for word in re.findall(r"[A-Z][a-z]+", node.name.replace("ContextTooLong", ""))}
            if AVOIDED & words:
                found.append(f"{named(path)}: {node.name}")
    assert found == []


def test_the_glossary_avoids_the_same_words() -> None:
    line = text(ROOT / "docs" / "glossary.md").rpartition("Avoided")[2]
    assert set(re.findall(r"\w+", line.partition(":")[2])) == AVOIDED - {"helpers", "utils"}


def test_nothing_changes_or_is_fetched_at_import() -> None:
    """A module's top level defines; it calls nothing that opens, connects or starts."""
    acting = {"open", "connect", "run", "start", "create_task", "urlopen", "basicConfig", "getLogger().setLevel"}
    found = []
    for path in modules():
        if path.name == "__main__.py":
            continue
        for statement in tree(path).body:
            call = statement.value if isinstance(statement, ast.Expr | ast.Assign) else None
            if isinstance(call, ast.Call):
                name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                if name in acting:
                    found.append(f"{named(path)}:{statement.lineno}")
        if any(isinstance(node, ast.Global) for node in ast.walk(tree(path))):
            found.append(f"{named(path)}: global")
    assert found == []
