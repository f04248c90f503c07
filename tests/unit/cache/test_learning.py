"""What labels teach: the scope they come from, its relatives, and the entry they are about."""

from __future__ import annotations

import logging
import math
import random

import pytest

from headgate.cache.accuracy import interval
from headgate.cache.labels import Label, Origin, Scope
from headgate.cache.learning import NOTHING, Learning
from headgate.cache.recalibration import log_odds, probable
from headgate.cache.tuning import Tuning
from headgate.model.tenancy import Namespace

SHOP = Scope(Namespace("acme"), b"shop")
HELP = Scope(Namespace("acme"), b"help")
STRANGE = Scope(Namespace("umbra"), b"shop")
EVEN = Tuning(mix=1.0, prevented=0.0)
"""Nothing is believed of traffic that was not seen, nor of errors that labels prevent: the rate is what was asked for."""


def label(
    scope: Scope = SHOP,
    *,
    entry: str = "e",
    confidence: float = 0.9,
    right: bool = True,
    origin: Origin = "check",
    served: bool = True,
    uniform: bool = True,
) -> Label:
    return Label(
        scope=scope,
        entry=entry,
        confidence=confidence,
        right=right,
        origin=origin,
        served=served,
        at=0.0,
        uniform=uniform,
    )


def prior_bar(rate: float) -> float:
    """The bar of a prior whose candidates above a probability p are wrong in half of 1 - p, on average."""
    return 1.0 - 2.0 * rate


class Traffic:
    """Questions with one candidate each, of a prior probability and a truth that is `bias` away from it in log-odds."""

    def __init__(self, learning: Learning, scope: Scope, bias: float, seed: int) -> None:
        self.learning = learning
        self.scope = scope
        self.bias = bias
        self.chance = random.Random(seed)
        self.hits = self.wrong = self.labels = 0

    def ask(self, error_rate: float, share: float) -> None:
        """One request; of the hits a `share` is checked, of the misses each third has a label."""
        chance, learning = self.chance, self.learning
        prior = chance.betavariate(2.0, 0.2)
        right = chance.random() < probable(log_odds(prior) + self.bias)
        entry = f"e{chance.randrange(100_000)}"
        confidence = learning.confidence(self.scope, entry, prior)
        if confidence >= learning.bar(self.scope, error_rate, prior_bar):
            learning.served(self.scope, "semantic")
            self.hits += 1
            self.wrong += not right
            if chance.random() < share:
                self.learn(entry, prior, right, served=True)
        elif prior >= 0.2 and chance.random() < 1 / 3:
            self.learn(entry, prior, right, served=False)

    def learn(self, entry: str, prior: float, right: bool, *, served: bool) -> None:
        self.labels += 1
        origin: Origin = "check" if served else "miss"
        learnt = label(
            self.scope, entry=entry, confidence=prior, right=right, origin=origin, served=served, uniform=served
        )
        self.learning.learn(learnt)

    def share(self) -> float:
        """Of its hits, how many were wrong since this was asked last."""
        share = self.wrong / max(1, self.hits)
        self.hits = self.wrong = 0
        return share


def test_a_prior_that_is_too_sure_in_one_scope_is_corrected_there_and_the_others_keep_their_hits() -> None:
    learning = Learning(EVEN)
    biased, honest = Traffic(learning, SHOP, -2.0, 1), Traffic(learning, STRANGE, 0.0, 2)
    untaught = Traffic(Learning(EVEN), SHOP, -2.0, 1)
    plain = Traffic(Learning(EVEN), STRANGE, 0.0, 2)
    for _ in range(6_000):
        for traffic in (biased, honest, untaught, plain):
            traffic.ask(0.01, 0.02 if traffic in (biased, honest) else 0.0)
            if traffic in (untaught, plain):
                traffic.learning = Learning(EVEN)
    assert biased.labels < 2_500
    hits, alone = honest.hits, plain.hits
    assert untaught.share() > 0.025, "without learning"
    assert biased.share() <= 0.01
    assert honest.share() <= 0.011
    assert abs(hits - alone) < 0.15 * alone, "what one scope learns of itself is not held against another tenant's"
    assert learning.state(SHOP).shift == pytest.approx(-2.0, abs=0.7)


def test_a_cold_scope_believes_what_its_tenants_other_scopes_have_learnt_and_strangers_hardly_do() -> None:
    learning = Learning()
    chance = random.Random(7)
    for scope in (SHOP, HELP):
        for _ in range(400):
            prior = chance.betavariate(2.0, 0.2)
            right = chance.random() < probable(log_odds(prior) - 2.0)
            learning.learn(label(scope, entry=str(chance.random()), confidence=prior, right=right, served=False))
    cold, stranger = Scope(Namespace("acme"), b"new"), STRANGE
    assert learning.confidence(SHOP, "x", 0.95) < 0.85
    assert learning.confidence(cold, "x", 0.95) < 0.90
    assert learning.confidence(cold, "x", 0.95) < learning.confidence(stranger, "x", 0.95) <= 0.95
    assert learning.confidence(stranger, "x", 0.95) > 0.92


def test_no_tenant_pushes_the_others_further_than_one_tenants_step_however_much_it_labels() -> None:
    few, many = Learning(), Learning()
    for number in range(20):
        few.learn(label(confidence=0.99, right=False, entry=str(number)))
    for number in range(3_000):
        many.learn(
            label(Scope(Namespace("acme"), bytes([number % 200])), confidence=0.99, right=False, entry=str(number))
        )
    untouched, after = 0.99, many.confidence(STRANGE, "x", 0.99)
    assert few.confidence(STRANGE, "x", 0.99) < untouched
    assert log_odds(after) > log_odds(untouched) - 1.0, "one tenant's word is one tenant's word"


def test_without_labels_the_prior_decides() -> None:
    learning = Learning()
    for prior in (0.0, 0.1, 0.5, 0.97, 0.999, 1.0):
        assert learning.confidence(SHOP, "e", prior) == pytest.approx(prior, abs=1e-5)
    assert learning.confidence(SHOP, "e", math.nan) == pytest.approx(0.0, abs=1e-5)


def test_more_labels_of_the_kind_that_is_believed_change_little() -> None:
    learning = Learning()
    chance = random.Random(3)
    for number in range(1_000):
        prior = chance.random()
        learning.learn(label(confidence=prior, right=chance.random() < prior, entry=str(number), served=False))
    for prior in (0.2, 0.5, 0.9, 0.99):
        assert learning.confidence(SHOP, "new", prior) == pytest.approx(prior, abs=0.06)


def test_a_prior_that_is_worth_nothing_keeps_its_order_and_some_of_its_slope() -> None:
    learning = Learning()
    chance = random.Random(3)
    for number in range(600):
        learning.learn(label(confidence=chance.random(), right=chance.random() < 0.5, entry=str(number), served=False))
    state = learning.state(SHOP)
    assert state.slope >= 0.3
    confidences = [learning.confidence(SHOP, "new", prior / 100) for prior in range(1, 100)]
    assert confidences == sorted(confidences)


def test_only_the_newest_labels_of_a_scope_count() -> None:
    learning = Learning(Tuning(window=100))
    chance = random.Random(3)
    for number in range(300):
        learning.learn(label(confidence=0.9, right=chance.random() < 0.4, entry=f"a{number}", served=False))
    low = learning.confidence(SHOP, "new", 0.9)
    for number in range(200):
        learning.learn(label(confidence=0.9, right=chance.random() < 0.95, entry=f"b{number}", served=False))
    assert low < 0.6
    assert learning.confidence(SHOP, "new", 0.9) > 0.85
    assert learning.state(SHOP).labels == 100


def test_an_entry_that_was_right_is_trusted_more_and_one_that_was_wrong_less_than_the_scope_says() -> None:
    learning = Learning()
    for number in range(8):
        learning.learn(label(entry="good", confidence=0.8, right=True))
        learning.learn(label(entry=f"other{number}", confidence=0.8, right=number % 4 > 0))
    before = learning.confidence(SHOP, "unknown", 0.95)
    assert learning.confidence(SHOP, "good", 0.95) > before
    learning.learn(label(entry="hub", confidence=0.95, right=False, served=False))
    after = learning.confidence(SHOP, "unknown", 0.95)
    assert learning.confidence(SHOP, "hub", 0.95) < after - 0.1
    assert learning.confidence(STRANGE, "hub", 0.95) > 0.9, "ids mean nothing in another scope"


def test_what_was_wrong_when_it_was_served_is_withdrawn_until_it_is_proven() -> None:
    learning = Learning(Tuning(proofs=2))
    learning.learn(label(entry="e", right=False, served=False, origin="miss"))
    assert not learning.withdrawn(SHOP, "e"), "it was not served: nobody was told anything wrong"
    learning.learn(label(entry="e", right=False, served=True))
    assert learning.withdrawn(SHOP, "e")
    assert not learning.withdrawn(STRANGE, "e")
    learning.learn(label(entry="e", right=True, served=False, origin="miss"))
    learning.learn(label(entry="e", right=False, served=False, origin="miss"))
    learning.learn(label(entry="e", right=True, served=False, origin="miss"))
    assert learning.withdrawn(SHOP, "e"), "two right ones in a row, not in all"
    learning.learn(label(entry="e", right=True, served=False, origin="miss"))
    assert not learning.withdrawn(SHOP, "e")


def test_a_complaint_withdraws_like_a_check_and_says_less_about_the_scope() -> None:
    checked, told = Learning(), Learning()
    for number in range(5):
        checked.learn(label(entry=str(number), right=False, origin="check"))
        told.learn(label(entry=str(number), right=False, origin="feedback"))
    assert checked.withdrawn(SHOP, "1")
    assert told.withdrawn(SHOP, "1")
    assert checked.confidence(SHOP, "new", 0.9) < told.confidence(SHOP, "new", 0.9) < 0.9
    assert told.state(SHOP).drift == "ok", "who complains is no sample"


def test_the_promise_is_about_all_answers_from_stock_up_to_a_limit() -> None:
    learning = Learning(Tuning(found=20.0, mix=1.0, prevented=0.0, most=4.0))
    asked: list[float] = []

    def bar(rate: float) -> float:
        asked.append(rate)
        return 0.9

    assert learning.bar(SHOP, 0.01, bar) == 0.9
    for _ in range(20):
        learning.served(SHOP, "exact")
    learning.bar(SHOP, 0.01, bar)
    for _ in range(20):
        learning.served(SHOP, "semantic")
    learning.bar(SHOP, 0.01, bar)
    for _ in range(1_000):
        learning.served(SHOP, "exact")
    learning.bar(SHOP, 0.01, bar)
    assert asked == pytest.approx([0.01, 0.02, 0.015, 0.04])
    assert learning.last_bar(SHOP) == 0.9
    assert learning.last_bar(STRANGE) == NOTHING


def test_old_hits_are_forgotten() -> None:
    learning = Learning(Tuning(memory=100.0))
    for _ in range(500):
        learning.served(SHOP, "exact")
    for _ in range(500):
        learning.served(SHOP, "semantic")
    state = learning.state(SHOP)
    assert state.hits <= 100
    assert state.by_meaning > 0.9 * state.hits


def test_a_scope_that_breaks_its_promise_is_tightened_then_off_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    learning = Learning(EVEN, error_rate=0.01)
    rates: list[float] = []

    def bar(rate: float) -> float:
        rates.append(rate)
        return 0.5

    learning.bar(SHOP, 0.01, bar)
    seen = [learning.state(SHOP).drift]
    with caplog.at_level(logging.WARNING):
        for number in range(400):
            # Sure answers that are wrong: nothing that is learnt of the prior explains them soon enough.
            learning.learn(label(entry=str(number), confidence=0.9999, right=number % 3 > 0))
            learning.bar(SHOP, 0.01, bar)
            if learning.state(SHOP).drift != seen[-1]:
                seen.append(learning.state(SHOP).drift)
    assert seen[:2] == ["ok", "tightened"]
    assert 0.005 in [pytest.approx(rate) for rate in rates]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(seen) - 1
    assert "acme" in lines[0]
    assert "tightened" in lines[0]


def test_the_accuracy_of_what_was_served_counts_what_chance_has_chosen() -> None:
    learning = Learning()
    for number in range(40):
        learning.learn(label(entry=str(number), confidence=0.99, right=number != 7, uniform=True))
    for number in range(40):
        learning.learn(label(entry=f"v{number}", confidence=0.99, right=False, uniform=False))
    state = learning.state(SHOP)
    assert (state.checked, state.wrong) == (40, 1)
    assert state.accuracy == pytest.approx(0.975)
    assert (state.lowest, state.highest) == pytest.approx(interval(39, 40))
    assert learning.accuracy() == (39, 40)


def test_what_an_earlier_run_has_learnt_is_learnt_again() -> None:
    chance = random.Random(5)
    labels = []
    for number in range(900):
        prior = chance.random()
        right = chance.random() < probable(log_odds(prior) - 1.0)
        labels.append(label(confidence=prior, right=right, entry=str(number % 50), origin="miss", served=False))
    first, second = Learning(), Learning()
    for one in labels:
        first.learn(one)
    second.recall(labels)
    for prior in (0.3, 0.8, 0.97):
        assert second.confidence(SHOP, "new", prior) == pytest.approx(first.confidence(SHOP, "new", prior), abs=0.03)


def test_what_is_known_is_bounded() -> None:
    learning = Learning(Tuning(scopes=10, entries=30, window=5))
    for number in range(500):
        scope = Scope(Namespace(f"t{number % 40}"), b"s")
        learning.learn(label(scope, entry=str(number), right=number % 2 > 0, confidence=0.5))
        learning.served(scope, "semantic")
    assert len(learning.states()) == 10
    assert len(learning.states("t19")) == 1
    assert sum(learning.drifts().values()) == 10
    assert learning.confidence(Scope(Namespace("never"), b"s"), "e", 0.5) == pytest.approx(0.5, abs=0.2)


def test_a_scope_that_is_forgotten_takes_what_it_had_said_with_it() -> None:
    learning = Learning(Tuning(scopes=1))
    for number in range(50):
        learning.learn(label(SHOP, entry=str(number), right=False, confidence=0.9, served=False, origin="miss"))
    learning.learn(label(STRANGE, entry="x", right=True, confidence=0.5, served=False, origin="miss"))
    assert learning.confidence(SHOP, "new", 0.9) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(
    ("seen", "of", "low", "high"),
    [
        (0, 300, 0.0, 0.0122),
        (300, 300, 0.9878, 1.0),
        (0, 1, 0.0, 0.975),
        (5, 10, 0.1871, 0.8129),
        (1, 10, 0.0025, 0.4450),
        (298, 300, 0.9761, 0.9992),
        (9_990, 10_000, 0.9982, 0.9995),
    ],
)
def test_the_interval_is_that_of_clopper_and_pearson(seen: int, of: int, low: float, high: float) -> None:
    assert interval(seen, of) == pytest.approx((low, high), abs=6e-5)
