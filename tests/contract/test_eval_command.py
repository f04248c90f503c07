"""`headgate eval` and `headgate replay` from outside: names in the JSON, exit codes, and what is said of files that are no good."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headgate.cli.main import main

Run = Callable[..., Result]

PAIRS = [
    {"a": "How do I reset my password?", "b": "How can I reset my password?", "same": True, "kind": "reworded"},
    {"a": "How do I reset my password?", "b": "Do you ship to Norway?", "same": False, "kind": "other"},
    {"a": "Is there a refund after 14 days?", "b": "Is there a refund after 30 days?", "same": False, "kind": "number"},
    {"a": "Where is my parcel?", "b": "Where is my parcel?", "same": 1},
]
STREAM = [
    {"t": n * 10.0, "tenant": tenant, "text": text, "answer": answer}
    for n, (tenant, text, answer) in enumerate(
        [
            ("mill", "How do I reset my password?", 1),
            ("mill", "How do I reset my password?", 1),
            ("mill", "How can I reset my password?", 1),
            ("farm", "How do I reset my password?", 2),
            ("mill", "Do you ship to Norway?", 3),
            ("mill", "", 4),
            ("mill", "🙂🙂🙂", 5),
        ]
    )
]
LOG = [
    {
        "timestamp": f"2026-11-20T{hour:02}:00:00Z",
        "tenant": "mill",
        "messages": [{"role": "user", "content": text}],
        "answer": answer,
        "cost": "0.002",
    }
    for hour, (text, answer) in enumerate(
        [("Do you ship to Norway?", "Yes, it takes a week."), ("Are you open on Sunday?", "No, we rest on Sundays.")]
        * 5
    )
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs one command line in an empty folder and checks its exit code."""
    monkeypatch.chdir(tmp_path)

    def invoke(*args: str, code: int = 0) -> Result:
        unset = dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HEADGATE_DATA"))
        outcome = CliRunner().invoke(main, list(args), env=unset, prog_name="headgate")
        assert outcome.exit_code == code, outcome.output
        return outcome

    return invoke


def lines(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def test_pairs_print_the_promised_names(run: Run) -> None:
    told = json.loads(run("eval", "pairs", lines("p.jsonl", PAIRS), "--max-error-rate", "0.005", "--json").stdout)
    assert {"pairs", "auc", "served_same", "served_different", "calibration_error", "by_kind"} <= set(told)
    assert (told["pairs"], told["max_error_rate"], set(told["by_kind"])) == (4, 0.005, {"reworded", "other", "number"})
    assert 0.5 <= told["served_same"] <= 1
    assert told["served_different"] == 0
    assert told["auc"] > 0.9


def test_a_stream_prints_the_promised_names(run: Run) -> None:
    told = json.loads(run("eval", "stream", lines("s.jsonl", STREAM), "--json").stdout)
    names = {
        *("requests", "perfect", "exact", "hits", "wrong_of_hits", "semantic_recall"),
        *("shadow_calls", "lookups_per_s", "bytes_per_entry"),
    }
    assert names <= set(told)
    assert (told["requests"], told["perfect"], told["exact"]) == (7, pytest.approx(2 / 7), pytest.approx(1 / 7))
    assert told["by_tier"]["exact"] == {"hits": 1, "wrong": 0, "undecided": 0}
    assert told["lookups_per_s"] > 0
    assert told["bytes_per_entry"] > 0
    assert isinstance(told["shadow_calls"], int)


def test_no_answer_of_a_stream_expires(run: Run) -> None:
    rows = [
        {"t": t, "tenant": "mill", "text": "Open?", "answer": 1} for t in (0.1234567, 86_400.9, 30_000_000.000001, 7)
    ]
    assert json.loads(run("eval", "stream", lines("s.jsonl", rows), "--json").stdout)["hits"] == 0.75


def test_zipped_files_and_halves_are_taken(run: Run) -> None:
    Path("p.jsonl.gz").write_bytes(gzip.compress(Path(lines("p.jsonl", PAIRS)).read_bytes()))
    told = json.loads(run("eval", "pairs", "p.jsonl.gz", "--half", "second", "--json").stdout)
    assert (told["pairs"], told["same"]) == (2, 1)


def test_people_get_tables_and_a_picture(run: Run) -> None:
    pairs = run("eval", "pairs", lines("p.jsonl", PAIRS), "--plot", "p.png")
    assert "different served" in pairs.stdout
    assert "asking" in pairs.stderr
    stream = run("eval", "stream", lines("s.jsonl", STREAM), "--plot", "s.png", "--no-learning", "--seed", "b")
    assert "semantic recall" in stream.stdout
    assert "not learning" in stream.stdout
    assert all(Path(name).read_bytes().startswith(b"\x89PNG") for name in ("p.png", "s.png"))


def test_one_pair_has_no_area(run: Run) -> None:
    told = json.loads(run("eval", "pairs", lines("p.jsonl", PAIRS[:1]), "--json").stdout)
    assert told["auc"] is None
    assert told["served_different"] is None


def test_the_configured_error_rate_counts_unless_another_is_said(run: Run) -> None:
    Path("headgate.yaml").write_text("cache: {semantic: {max_error_rate: 0.02, mode: shadow}}")
    name = lines("s.jsonl", STREAM)
    assert json.loads(run("eval", "stream", name, "--json").stdout)["max_error_rate"] == 0.02
    told = json.loads(run("eval", "stream", name, "--json", "--max-error-rate", "0.001").stdout)
    assert told["max_error_rate"] == 0.001


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("pairs", "absent.jsonl"), 2, "does not exist"),
        (("pairs", "."), 2, "is a directory"),
        (("pairs", "empty.jsonl"), 1, "error: empty.jsonl: the file is empty\n"),
        (("stream", "empty.jsonl"), 1, "error: empty.jsonl: the file is empty\n"),
        (("pairs", "bad.jsonl"), 1, "error: bad.jsonl:2: Object missing required field `same`\n"),
        (("stream", "nan.jsonl"), 1, "error: nan.jsonl:1: JSON is malformed"),
        (("pairs", "cut.gz"), 1, "the gzip file is cut off or damaged here"),
        (("pairs", "binary"), 1, "error: binary:1: "),
        (("pairs", "good.jsonl", "--max-error-rate", "0.7"), 2, "is not in the range"),
        (("pairs", "good.jsonl", "--max-error-rate", "nan"), 2, "max"),
        (("pairs", "good.jsonl", "--half", "third"), 2, "is not one of"),
        (("pairs", "good.jsonl", "--plot", "absent/p.png"), 2, "there is no folder 'absent'"),
        (("pairs", "good.jsonl", "--config", "absent.yaml"), 2, "absent.yaml: there is no such file"),
        (("triples",), 2, "No such command 'triples'"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(run: Run, args: tuple[str, ...], code: int, told: str) -> None:
    lines("good.jsonl", PAIRS)
    lines("bad.jsonl", [*PAIRS[:1], {"a": "x", "b": "y"}])
    Path("empty.jsonl").touch()
    Path("nan.jsonl").write_text('{"t": NaN, "tenant": "mill", "text": "x", "answer": 1}')
    Path("cut.gz").write_bytes(gzip.compress(b"x" * 9_000)[:20])
    Path("binary").write_bytes(bytes(range(256)) * 4)
    outcome = run("eval", *args, code=code)
    assert told in outcome.stderr
    assert outcome.stdout == ""
    assert outcome.stderr.count("\n") == 1


def test_a_providers_embedder_is_not_measured_behind_its_back(run: Run) -> None:
    Path("headgate.yaml").write_text(
        "providers: {openai: {kind: openai, api_key: k}}\n"
        "cache: {semantic: {embedder: {provider: openai, model: e, dimensions: 8}}}"
    )
    outcome = run("eval", "pairs", lines("p.jsonl", PAIRS), code=1)
    assert "only one of this process can be measured" in outcome.stderr


def test_a_replay_tells_every_combination(run: Run) -> None:
    rates = "cache.semantic.max_error_rate=0.005,0.02"
    outcome = run("replay", lines("l.jsonl", LOG), "--set", rates, "--set", "cache.exact.ttl=90m,24h", "--json")
    told = json.loads(outcome.stdout)
    assert [one["settings"]["cache.exact.ttl"] for one in told["runs"]] == ["90m", "24h"] * 2
    short, long, *_ = (one["savings"]["saved_usd"] for one in told["runs"])
    assert (short, long) == ("0.00", "0.016")
    assert told["estimated"]
    assert [one["report"]["max_error_rate"] for one in told["runs"]] == [0.005, 0.005, 0.02, 0.02]


def test_a_replay_is_a_table_and_a_page(run: Run) -> None:
    bad = {"timestamp": "2026-11-20T00:30:00Z", "text": "<script>alert(1)</script>"}
    outcome = run("replay", lines("l.jsonl", [*LOG, bad]), "--html", "page.html")
    assert "10 requests of one tenant, 2026-11-20 00:00 UTC to 2026-11-20 09:00 UTC" in outcome.stdout
    assert "1 line of the log was left out: no answer (1)." in outcome.stdout
    assert "as configured" in outcome.stdout
    told = Path("page.html").read_text(encoding="utf-8")
    assert told.startswith("<!doctype html>")
    assert "<script" not in told


def test_a_stream_can_be_replayed(run: Run) -> None:
    told = json.loads(run("replay", lines("s.jsonl", STREAM), "--set", "cache.semantic.mode=on,off", "--json").stdout)
    assert not told["estimated"]
    assert told["runs"][1]["report"]["by_tier"]["semantic"]["hits"] == 0


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("--set", "cache.semantic.max_error_rate"), 2, "is not PATH=VALUE"),
        (
            ("--set", "cache.semantic.max_error_rate=2"),
            2,
            "cache.semantic.max_error_rate: must be at most 0.5, not '2'",
        ),
        (("--set", "cache.semantic.ttll=1h"), 2, "cache.semantic.ttll: unknown key; did you mean ttl?"),
        (("--set", "cache=1"), 2, "cache: must be a mapping of keys to values, not '1'"),
        (("--set", "a=1,2,3,4,5", "--set", "b=1,2,3,4,5"), 2, "25 combinations of settings; at most 24"),
        (("--html", "absent/page.html"), 2, "there is no folder 'absent'"),
    ],
)
def test_a_setting_that_cannot_be_is_named(run: Run, args: tuple[str, ...], code: int, told: str) -> None:
    outcome = run("replay", lines("l.jsonl", LOG), *args, code=code)
    assert told in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_a_log_of_nothing_usable_is_refused(run: Run) -> None:
    Path("l.jsonl").write_text("hello\nworld\n")
    assert run("replay", "l.jsonl", code=1).stderr == "error: l.jsonl: no line of it can be used: line 1: not JSON\n"
