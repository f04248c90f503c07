"""`headgate route train`, `eval` and `export`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from headgate.cli.route import route
from headgate.evaluation.files import BadFile
from headgate.evaluation.rephrasing import WAYS
from headgate.evaluation.routing_rows import read_log
from headgate.routing.uplift import UpliftFile

TASKS = {
    "sums": "What is {} plus {}?",
    "capitals": "Which city is the capital of country number {} on page {}?",
    "proofs": "Prove that {} divides the product of {} and any prime.",
    "mails": "Write a short mail to customer {} about order {}.",
}


def rows(count: int = 240) -> list[dict]:
    found = []
    for number in range(count):
        task = list(TASKS)[number % 4]
        hard = task == "proofs" or (task == "sums" and number % 3 == 0)
        prompt = TASKS[task].format(number, number + 7)
        found.append({"prompt": prompt, "task": task, "cheap": 0 if hard else 1, "rich": 1})
    return found


def written(path: Path, lines: list[dict]) -> Path:
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def run(*arguments: str | Path, code: int = 0):
    result = CliRunner().invoke(route, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result


def test_a_model_is_trained_on_one_half_and_measured_on_the_other(tmp_path: Path) -> None:
    log, out = written(tmp_path / "log.jsonl.gz", rows()), tmp_path / "uplift.json"
    told = json.loads(run("train", log, "--out", out, "--half", "first", "--json").output)
    content = out.read_bytes()
    assert b"Prove" not in content
    assert UpliftFile.__struct_fields__ == tuple(json.loads(content))
    report = json.loads(run("eval", log, "--model", out, "--half", "second", "--json").output)
    assert told["rows"] + report["questions"] == 240
    assert report["orders"]["model"]["apgr"] > 0.62
    assert set(report["orders"]) == {"model", "random", "longest", "oracle"}
    assert set(report["flips"]) == set(WAYS)
    assert set(report["tasks"]) == set(TASKS)


def test_every_task_is_judged_by_a_model_that_has_not_seen_it(tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", rows())
    report = json.loads(run("eval", log, "--hold-out", "task", "--json").output)
    assert report["questions"] == 240
    for task in report["tasks"].values():
        assert task["apgr"] is None or task["apgr"] >= 0.4
    by_row = json.loads(run("eval", log, "--hold-out", "row", "--json").output)
    assert by_row["orders"]["model"]["apgr"] > 0.62


def test_the_figures_are_printed_for_people(tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", rows(200))
    output = run("eval", log, "--hold-out", "row").output
    for word in ("APGR", "CPT50", "CPT80", "all cheap", "all rich", "random", "longest", "oracle", "flips", "proofs"):
        assert word in output


def test_of_many_models_the_two_that_are_named_are_compared(tmp_path: Path) -> None:
    lines = [{"prompt": "a", "task": "t", "scores": {"x": 0.1, "y": 0.5, "z": 1.0}}] * 3
    path = written(tmp_path / "log.jsonl", lines)
    log = read_log(path, cheap="y", rich="z")
    assert (log.rows.cheap[0], log.rows.rich[0]) == (0.5, 1.0)
    log = read_log(path)
    assert (log.cheap, log.rich) == ("x", "z")
    with pytest.raises(BadFile, match="no model is called 'w'"):
        read_log(path, cheap="w")


def test_an_exported_outcome_log_tells_of_the_tier_that_was_asked_only(tmp_path: Path) -> None:
    line = {
        "id": "c", "at": 1.0, "tenant": "acme", "route": "auto", "tier": "low", "propensity": 0.5,
        "candidates": {"low": ["small"], "high": ["large"]}, "vector": "AQID", "outcome": 1.0, "origin": "feedback",
    }  # fmt: skip
    unknown = {**line, "outcome": None, "origin": None}
    log = read_log(written(tmp_path / "log.jsonl", [line, {**line, "tier": "high"}, unknown]))
    assert log.rows.weight.tolist() == [2.0, 2.0]
    assert (log.rows.cheap[0], log.rows.rich[1]) == (1.0, 1.0)
    assert log.vectors is not None
    assert log.vectors.shape == (2, 3)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"nonsense\n", ":1: "),
        (b'{"prompt": "a", "cheap": 1, "rich": 0}\n{"prompt": 3}\n', ":2: "),
        (b'{"prompt": "a"}\n', ":1: no number"),
        (b'{"prompt": "a", "scores": {"x": 1}}\n', "two models"),
        (b'{"id": "c"}\n', ":1: "),
    ],
)
def test_a_log_that_cannot_be_used_says_where_and_why(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    result = run("train", path, "--out", tmp_path / "out.json", code=1)
    assert why in result.output


def test_a_data_directory_without_outcomes_exports_none(tmp_path: Path) -> None:
    assert run("export", "--data", tmp_path).output == ""


@pytest.mark.parametrize("way", WAYS)
def test_a_rephrased_question_is_another_text_and_the_same_each_time(way: str) -> None:
    text = "Which city is the capital of France? Tell me."
    assert WAYS[way](text) == WAYS[way](text) != text
    assert isinstance(WAYS[way](""), str)
