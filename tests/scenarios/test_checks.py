"""Were the answers from stock right? Looked into behind everybody's back, at the operator's expense."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from headgate.budget.budget import UsageQuery
from headgate.cache.checks import Ration
from headgate.cache.judge import Case, ExactJudge
from headgate.cache.labels import Label, Scope
from headgate.cache.learning import Learning
from headgate.cache.treatment import CachePolicy
from headgate.checking import CHECKS
from headgate.fittings_checking import model_judge
from headgate.model.chat import Completion
from headgate.model.errors import Rejected
from headgate.model.tenancy import Namespace, Policy, Principal, Wishes
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.reply import Reply
from tests.scenarios.house import CALLER, House, ask, caller

FIRST, AGAIN, NEAR = (
    "How long does a refund take?",
    "how long does a refund take",
    "How do gardeners trim a tall hedge?",
)
"""A question, the same in other words, and one that is near and not the same."""


class Letters:
    """An embedder of bags of letters."""

    identity = "letters"
    dimensions = 27

    def fits(self, text: str) -> bool:
        return True

    async def embed(self, text: str) -> Any:
        counts = np.zeros(self.dimensions, np.float32)
        for letter in text.lower():
            counts[ord(letter) - 96 if "a" <= letter <= "z" else 0] += 1
        counts[0] = 0
        return counts / np.linalg.norm(counts)

    async def close(self) -> None:
        return None


class Watched(House):
    """A house whose answers from stock are all checked, as long as nothing else is said."""

    def __init__(self, *scripts: Any, **more: Any) -> None:
        scripted = ScriptedProvider(*scripts)
        usual = {"ration": Ration(share=1.0, chance=1.0), "judge": ExactJudge(otherwise=False)}
        super().__init__(more.pop("providers", {"one": scripted}), embedder=Letters(), **{**usual, **more})
        self.provider = scripted

    @property
    def learning(self) -> Learning:
        return self.checking.learning

    async def say(self, text: str, who: Principal = CALLER, **wishes: Any) -> tuple[Reply, Completion]:
        async with await self.gateway.chat(who, ask(text), Wishes(**wishes)) as reply:
            said = await reply.completion()
        return reply, said

    async def paid(self, tenant: str, feature: str | None = None) -> int:
        """Nano-USD that one tenant has paid, for all or for one feature."""
        wanted = {"tenant": tenant} if feature is None else {"tenant": tenant, "feature": feature}
        rows = await self.ledger.usage(UsageQuery(group_by=tuple(wanted)))
        return sum(row.cost for row in rows if row.group == wanted)

    def learnt(self) -> list[Label]:
        return self.labels.past()[0]


async def test_an_answer_that_was_served_by_meaning_is_bought_again_behind_its_callers_back() -> None:
    house = Watched(answer("Soon."), answer("soon"))
    await house.say(FIRST)
    reply, said = await house.say(AGAIN)
    assert (reply.source, said.text) == ("semantic", "Soon.")
    assert len(house.provider.calls) == 1, "the caller did not wait for it"
    await house.checking.idle()
    assert len(house.provider.calls) == 2
    assert house.provider.calls[1].request.question == AGAIN
    assert house.outcomes == ["right"]
    (label,) = house.learnt()
    assert (label.right, label.origin, label.served, label.uniform) == (True, "check", True, True)
    assert label.scope.namespace == Namespace("acme")
    assert house.learning.state(label.scope).checked == 1


async def test_the_operator_pays_for_it_and_the_tenant_does_not() -> None:
    house = Watched(answer("Soon."))
    await house.say(FIRST)
    before = await house.paid("acme")
    await house.say(AGAIN)
    await house.checking.idle()
    assert await house.paid("operator", "cache-check") > 0
    assert await house.paid("acme") == before > 0


async def test_the_bought_answer_is_the_questions_own_from_then_on() -> None:
    house = Watched(answer("Soon."), answer("Tomorrow."))
    await house.say(FIRST)
    await house.say(AGAIN)
    await house.checking.idle()
    reply, said = await house.say(AGAIN)
    assert (reply.source, said.text) == ("exact", "Tomorrow.")
    assert len(house.provider.calls) == 2


async def test_an_answer_that_was_wrong_is_withdrawn_from_serving_by_meaning() -> None:
    house = Watched(answer("Soon."), answer("Never."))
    first, _ = await house.say(FIRST)
    await house.say(AGAIN)
    await house.checking.idle()
    assert house.outcomes == ["wrong"]
    (label,) = house.learnt()
    assert label.entry == first.id
    assert house.learning.withdrawn(label.scope, first.id)


async def test_a_check_keeps_to_the_callers_policy() -> None:
    one, two = ScriptedProvider(), ScriptedProvider()
    house = Watched(providers={"one": one, "two": two})
    who = caller(prefer=("two",))
    await house.say(FIRST, who)
    await house.say(AGAIN, who)
    await house.checking.idle()
    assert (len(one.calls), len(two.calls)) == (0, 2)


async def test_a_check_that_fails_harms_nobody_and_teaches_nothing() -> None:
    house = Watched(answer("Soon."), [Rejected("No.")])
    await house.say(FIRST)
    _, said = await house.say(AGAIN)
    assert said.text == "Soon."
    await house.checking.idle()
    assert house.outcomes == ["failed"]
    assert house.learnt() == []
    assert not house.checking.health.well
    assert (await house.say(AGAIN))[0].source == "semantic"


async def test_where_nothing_may_be_spent_nothing_is_checked() -> None:
    house = Watched(ration=Ration(share=0.0))
    await house.say(FIRST)
    for _ in range(20):
        await house.say(AGAIN)
    await house.checking.idle()
    assert len(house.provider.calls) == 1


async def test_too_many_checks_at_once_are_dropped() -> None:
    gate = asyncio.Event()
    house = Watched(answer("Soon."), [gate, *answer("Soon.")], ration=Ration(share=9.0, chance=1.0, saved=100.0))
    await house.say(FIRST)
    await house.say(FIRST)
    for number in range(CHECKS + 3):
        await house.say(AGAIN + "!" * number)
    assert house.outcomes == ["dropped"] * 3
    gate.set()
    await house.checking.idle()
    assert house.outcomes.count("right") == CHECKS


async def test_closing_cancels_what_is_under_way_and_settles_it() -> None:
    gate = asyncio.Event()
    house = Watched(answer("Soon."), [*answer("So", "on.")[:2], gate])
    await house.say(FIRST)
    await house.say(AGAIN)
    while len(house.provider.calls) < 2:
        await asyncio.sleep(0)
    await house.gateway.close()
    assert house.outcomes == ["failed"]
    assert house.ledger.open_reservations() == 0
    assert await house.paid("operator") > 0, "what had come of the answer"


async def test_a_miss_with_a_near_candidate_teaches_without_a_call() -> None:
    house = Watched(answer("Soon."), answer("In Mill Lane."))
    first, _ = await house.say(FIRST)
    reply, _ = await house.say(NEAR)
    assert reply.source == "live"
    await house.checking.idle()
    assert len(house.provider.calls) == 2
    (label,) = house.learnt()
    assert (label.entry, label.right, label.origin, label.served) == (first.id, False, "miss", False)
    assert not house.learning.withdrawn(label.scope, first.id)
    assert house.outcomes == [], "it was no check"


async def test_a_tier_that_only_watches_learns_from_every_answer_it_would_have_served() -> None:
    house = Watched(answer("Soon."), cache=CachePolicy(semantic="shadow"))
    await house.say(FIRST)
    reply, _ = await house.say(AGAIN)
    assert reply.source == "live"
    await house.checking.idle()
    assert len(house.provider.calls) == 2, "the caller's own call, and none beside it"
    (label,) = house.learnt()
    assert (label.right, label.served, label.uniform) == (True, False, True)
    assert house.learning.accuracy() == (1, 1)


@pytest.mark.parametrize("said", [None, True, False])
async def test_what_the_judge_cannot_tell_teaches_nothing(said: bool | None) -> None:
    class Says:
        async def same(self, case: Case) -> bool | None:
            assert (case.question, case.one, case.other) == (AGAIN, "Soon.", "Now.")
            return said

    house = Watched(answer("Soon."), answer("Now."), judge=Says())
    await house.say(FIRST)
    await house.say(AGAIN)
    await house.checking.idle()
    assert house.outcomes == [{None: "unknown", True: "right", False: "wrong"}[said]]
    assert len(house.learnt()) == (said is not None)


async def test_an_answer_that_was_cut_off_is_not_compared() -> None:
    house = Watched(answer("Soon."), answer("So", finish="length"))
    await house.say(FIRST)
    await house.say(AGAIN)
    await house.checking.idle()
    assert house.outcomes == ["unknown"]
    assert (await house.say(AGAIN))[0].source == "semantic", "and it is nobody's answer"


async def test_a_wrong_answer_that_a_user_tells_of_is_gone_at_once_and_teaches() -> None:
    house = Watched(ration=Ration(share=0.0))
    first, _ = await house.say(FIRST)
    hit, _ = await house.say(AGAIN)
    heard = await house.checking.feedback("acme", hit.id, correct=False)
    assert (heard.known, heard.withdrawn, heard.learned) == (True, True, True)
    (label,) = house.learnt()
    assert (label.entry, label.right, label.origin) == (first.id, False, "feedback")
    assert (await house.say(AGAIN))[0].source == "live"
    assert (await house.say(FIRST))[0].source != "exact", "the entry is gone, however it was found"


async def test_of_one_answer_the_first_word_teaches_and_a_kind_one_withdraws_nothing() -> None:
    house = Watched(ration=Ration(share=0.0))
    await house.say(FIRST)
    hit, _ = await house.say(AGAIN)
    heard = await house.checking.feedback("acme", hit.id, correct=True)
    assert (heard.withdrawn, heard.learned) == (False, True)
    for _ in range(5):
        assert not (await house.checking.feedback("acme", hit.id, correct=True)).learned
    assert len(house.learnt()) == 1
    assert (await house.checking.feedback("acme", hit.id, correct=False)).withdrawn


async def test_an_exact_a_live_and_a_shared_answer_can_be_withdrawn_too() -> None:
    gate = asyncio.Event()
    house = Watched([gate, *answer("Soon.")], answer("Soon."), ration=Ration(share=0.0))
    async with (
        await house.gateway.chat(CALLER, ask(FIRST)) as leader,
        await house.gateway.chat(CALLER, ask(FIRST)) as follower,
    ):
        gate.set()
        await leader.completion()
        await follower.completion()
    exact, _ = await house.say(FIRST)
    assert (follower.source, exact.source) == ("coalesced", "exact")
    for told in (follower, leader, exact):
        heard = await house.checking.feedback("acme", told.id, correct=False)
        assert heard.withdrawn is (told is follower), "once gone, it is gone"
        assert not heard.learned
    live, _ = await house.say(FIRST)
    assert live.source == "live"
    assert (await house.checking.feedback("acme", live.id, correct=False)).withdrawn


async def test_nobody_speaks_of_another_tenants_answers() -> None:
    house = Watched(ration=Ration(share=0.0))
    first, _ = await house.say(FIRST)
    hit, _ = await house.say(AGAIN)
    for id in (hit.id, first.id, "never"):
        heard = await house.checking.feedback("umbra", id, correct=False)
        assert (heard.known, heard.withdrawn, heard.learned) == (False, False, False)
    assert (await house.say(AGAIN))[0].source == "semantic"


async def test_exact_hits_count_for_the_scope_that_they_belong_to() -> None:
    house = Watched(ration=Ration(share=0.0))
    await house.say(FIRST)
    for _ in range(3):
        await house.say(FIRST)
    await house.say(AGAIN)
    await house.say(FIRST, namespace="other")
    states = house.learning.states()
    (state,) = [one for one in states if one.hits]
    assert (state.hits, state.by_meaning) == (4, 1)
    assert state.scope == Scope(Namespace("acme"), state.scope.digest)


async def test_a_judge_that_breaks_harms_no_request() -> None:
    class Broken:
        async def same(self, case: Case) -> bool | None:
            raise OSError("no")

    house = Watched(judge=Broken())
    await house.say(FIRST)
    assert (await house.say(AGAIN))[0].source == "semantic"
    await house.checking.idle()
    assert house.outcomes == ["failed"]
    assert house.learnt() == []
    assert (await house.say(AGAIN))[0].source == "exact", "what was bought is kept all the same"


async def test_a_model_judges_at_the_operators_expense_and_only_where_the_tenant_may_use_it() -> None:
    house, bills = House({"judge": ScriptedProvider(answer("Yes.")), "other": ScriptedProvider()}), []
    gateway = house.gateway
    judge = model_judge(
        "judge", routing=gateway.routing, budget=gateway.budget, dispatch=gateway.dispatch, paid=bills.append
    )
    case = Case(question=FIRST, one="A week.", other="Seven days.")
    assert await judge.same(case)
    (call,) = house.providers["judge"].calls
    assert call.request.temperature == 0
    (row,) = await house.journal("tenant", "feature")
    assert row.group == {"tenant": "operator", "feature": "cache-judge"}
    assert bills == [row.cost]
    barred = Case(question=FIRST, one="A week.", other="Seven days.", policy=Policy(allowed_models=("other",)))
    assert await judge.same(barred) is None
    assert len(house.providers["judge"].calls) == 1
