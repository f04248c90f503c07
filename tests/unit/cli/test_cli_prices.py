"""`headgate prices`, on real files."""

from __future__ import annotations

from tests.unit.cli.conftest import Headgate, printed

SMALL = "simulated/simulated-small"


def test_prices_show_what_models_cost_and_what_falls_back(headgate: Headgate) -> None:
    shown = headgate("prices", "show").stdout
    line = next(line for line in shown.splitlines() if line.startswith("sim-small"))
    assert line.split()[:6] == ["sim-small", SMALL, "model", "0.15", "0.60", "(0.15)"]
    assert "table of 2026-08-21" in shown


def test_a_model_of_the_table_can_be_shown_without_being_configured(headgate: Headgate) -> None:
    (row,) = printed(headgate("prices", "show", "openai/gpt-4o-mini", "--json"))["data"]
    assert (row["origin"], row["prices"]["cached_input"]) == ("table", {"usd": "0.075", "fallback": False})


def test_a_price_is_set_and_taken_back(headgate: Headgate) -> None:
    row = printed(headgate("prices", "set", SMALL, "--input", "0.10", "--output", "1", "--call", "0.5", "--json"))
    assert (row["origin"], row["name"], row["prices"]["input"]["usd"]) == ("changed", "sim-small", "0.10")
    assert row["call_usd"] == "0.50"
    (row,) = printed(headgate("prices", "show", SMALL, "--json"))["data"]
    assert row["overridden"]
    assert "0.15" in headgate("prices", "unset", SMALL).stdout
    headgate("prices", "unset", SMALL, code=1)


def test_what_cannot_be_a_price_is_told_in_one_line(headgate: Headgate) -> None:
    for arguments, code in (
        (("set", "small", "--input", "1", "--output", "1"), 2),
        (("set", SMALL, "--input", "1"), 2),
        (("set", SMALL, "--input", "one", "--output", "1"), 2),
        (("set", SMALL, "--input", "-1", "--output", "1"), 2),
        (("set", SMALL, "--input", "9999999", "--output", "1"), 1),
        (("set", "nobody/x", "--input", "1", "--output", "1"), 1),
    ):
        outcome = headgate("prices", *arguments, code=code)
        assert len(outcome.stderr.strip().splitlines()) == 1
    assert printed(headgate("prices", "show", SMALL, "--json"))["data"][0]["origin"] == "model"
