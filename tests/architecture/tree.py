"""The repository's own files, as the tests of this folder read them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "headgate"
PLACES = (".ci", "benchmarks", "deploy", "docs", "src", "tests", "tools")
TEXTS = frozenset(
    {".conf", ".html", ".in", ".json", ".lock", ".lua", ".md", ".py", ".toml", ".tpl", ".txt", ".yaml", ".yml", ""}
)
LEFT_OUT = frozenset({"__pycache__", "results", ".ruff_cache"})
"""What tools leave behind, and what a machine measured."""


@cache
def text(path: Path) -> str:
    """A file's text."""
    return path.read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    """A module's syntax."""
    return ast.parse(text(path))


@cache
def modules() -> tuple[Path, ...]:
    """Every Python file of the package."""
    return tuple(sorted(SRC.rglob("*.py")))


@cache
def texts() -> tuple[Path, ...]:
    """Every text file of the project: no build, no cache, no weights."""
    loose = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")]
    deep = [path for place in PLACES for path in (ROOT / place).rglob("*") if path.is_file()]
    return tuple(
        sorted(
            path
            for path in [*loose, ROOT / ".gitignore", *deep]
            if path.suffix in TEXTS and not LEFT_OUT & set(path.relative_to(ROOT).parts)
        )
    )


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a module."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def classes(path: Path) -> Iterator[ast.ClassDef]:
    """Every class of a module."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef):
            yield node


def named(path: Path) -> str:
    """A path as it is told in a failure."""
    return str(path.relative_to(ROOT))
