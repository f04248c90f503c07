"""Conversations, whatever happens around them: no tier falls before its time is over."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.money import Usage
from headgate.model.tenancy import Principal
from headgate.routing.deciders import Asked, Deciders, Opinion
from headgate.routing.fleet import Fleet
from headgate.routing.route import TIERS, Route
from headgate.routing.routing import Routing
from headgate.routing.sticking import Sticking

IDLE = 100.0
NAMES = ("small", "middle", "large")


class Voice:
    """A decider that says what it is told to, or abstains."""

    def __init__(self) -> None:
        self.tier: str | None = None

    async def opinion(self, asked: Asked) -> Opinion:
        return Opinion(tier=self.tier, confidence=0.9, reason="told")  # type: ignore[arg-type]


events = st.lists(
    st.tuples(
        st.integers(0, 3),  # which conversation goes on
        st.sampled_from([*TIERS, None]),  # what the decider thinks of its next turn
        st.sampled_from(NAMES),  # who answers
        st.floats(0, IDLE / 2),  # seconds until then
        st.booleans(),  # whether it is answered at all
    ),
    max_size=40,
)


@settings(deadline=None)
@given(events)
def test_within_a_conversation_tiers_never_fall_before_its_time_is_over(happened: list) -> None:
    time, voice = [0.0], Voice()
    deployments = {name: Deployment(name=name, provider="sim", model=name) for name in NAMES}
    routing = Routing(
        deployments,
        {"auto": Route("auto", dict(zip(TIERS, ((name,) for name in NAMES), strict=True)), deciders=("features",), stick=IDLE)},
        fleet=Fleet(clock=lambda: time[0]),
        deciders=Deciders({"features": voice}),
        sticking=Sticking(clock=lambda: time[0]),
    )  # fmt: skip
    # Conversations 0 and 1 begin with the same words and go on differently; all are of one tenant, 3 of another user.
    said = [[("user", "Hello!")], [("user", "Hello!")], [("user", "Good day.")], [("user", "Hello!")]]
    last: dict[int, tuple[float, int]] = {}
    for which, tier, deployment, seconds, answered in happened:
        time[0] += seconds
        voice.tier = tier
        talk = said[which]
        request = ChatRequest.parse(
            {"model": "auto", "messages": [{"role": role, "content": text} for role, text in talk]}
        )
        user = "ann" if which == 3 else None
        decision = asyncio.run(routing.decide(request, Principal(tenant="acme"), user=user))
        height = TIERS.index(decision.tier)
        at, before = last.get(which, (float("-inf"), 0))
        if len(talk) > 1 and time[0] - at < IDLE:
            assert height >= before
        if answered:
            routing.answered(decision, "auto", deployment, Usage())
            last[which] = time[0], max(height, before) if time[0] - at < IDLE else height
            talk += [("assistant", f"{which}: {len(talk)}"), ("user", f"And {len(talk)}?")]
