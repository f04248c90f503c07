"""Shortening a conversation: whatever its shape, what is left is a conversation, and no more is gone than must."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from headgate.budget.estimate import measure
from headgate.model.chat import ChatRequest
from headgate.routing.pruning import cut, units, without

words = st.integers(0, 40).map(lambda count: "word " * count)
ids = st.sampled_from("ab")


@st.composite
def message(draw: st.DrawFn) -> dict[str, Any]:
    role = draw(
        st.sampled_from(["system", "developer", "user", "user", "assistant", "assistant", "calls", "tool", "tool"])
    )
    text = draw(words)
    if role == "calls":
        named = draw(st.lists(ids, min_size=1, max_size=3))
        calls = [{"id": id, "type": "function", "function": {"name": "f", "arguments": text}} for id in named]
        return {"role": "assistant", "content": None, "tool_calls": calls}
    return {"role": role, "content": text, **({"tool_call_id": draw(ids)} if role == "tool" else {})}


LATE = [
    {"role": "user", "content": "word " * 8},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f"}}]},
    {"role": "user", "content": "word " * 8},
    {"role": "tool", "content": "word " * 8, "tool_call_id": "a"},
    {"role": "user", "content": "word"},
]
"""A result that came after the user had said something else."""

conversations = st.lists(message(), min_size=1, max_size=24)


def request_of(messages: list[dict[str, Any]]) -> ChatRequest:
    return ChatRequest.parse({"model": "auto", "messages": messages})


def pruned(request: ChatRequest, room: int) -> tuple[ChatRequest, frozenset[int]] | None:
    gone = cut(request.messages, lambda places: measure(without(request, places)).likely <= room)
    if gone is None:
        return None
    places = frozenset(at for unit in gone for at in unit)
    return without(request, places), places


def pairs(request: ChatRequest) -> set[tuple[int, int]]:
    """Where each result's call is, and where it is itself; the last call of that id before it."""
    called: dict[str, int] = {}
    found = set()
    for at, one in enumerate(request.messages):
        for call in one.tool_calls or ():
            called[call.id] = at
        if one.role == "tool" and one.tool_call_id in called:
            found.add((called[one.tool_call_id], at))
    return found


@given(messages=conversations, room=st.integers(0, 400))
def test_what_is_left_fits_is_in_order_and_keeps_what_must_stay(messages: list[dict[str, Any]], room: int) -> None:
    request = request_of(messages)
    found = pruned(request, room)
    if found is None:
        return
    left, gone = found
    assert measure(left).likely <= room
    kept = [one for at, one in enumerate(messages) if at not in gone]
    assert left.body["messages"] == kept
    assert list(left.messages) == [one for at, one in enumerate(request.messages) if at not in gone]
    assert not any(messages[at]["role"] in {"system", "developer"} for at in gone)
    last_user = max((at for at, one in enumerate(messages) if one["role"] == "user"), default=None)
    assert last_user not in gone
    if any(one["role"] not in {"system", "developer"} for one in messages):
        last = max(at for at, one in enumerate(messages) if one["role"] not in {"system", "developer"})
        assert last not in gone


@example(messages=LATE, room=40)
@given(messages=conversations, room=st.integers(0, 400))
def test_a_result_and_its_call_stay_or_go_together(messages: list[dict[str, Any]], room: int) -> None:
    request = request_of(messages)
    found = pruned(request, room)
    if found is None:
        return
    left, gone = found
    for call, result in pairs(request):
        assert (call in gone) == (result in gone)
    assert len(pairs(left)) == sum(call not in gone for call, _ in pairs(request))


@given(messages=conversations, room=st.integers(0, 400))
def test_no_more_is_gone_than_must(messages: list[dict[str, Any]], room: int) -> None:
    request = request_of(messages)
    free = units(request.messages)
    found = pruned(request, room)
    if found is None:
        everything = [at for unit in free for at in unit]
        assert measure(without(request, everything)).likely > room
        return
    _, gone = found
    count = next(n for n in range(len(free) + 1) if frozenset(at for unit in free[:n] for at in unit) == gone)
    if count:
        fewer = [at for unit in free[: count - 1] for at in unit]
        assert measure(without(request, fewer)).likely > room


@given(messages=conversations)
def test_units_part_no_question_from_its_answer(messages: list[dict[str, Any]]) -> None:
    for unit in units(request_of(messages).messages):
        assert list(unit) == sorted(set(unit))
        before_last = max((at for at, one in enumerate(messages) if one["role"] == "user"), default=-1)
        after = next(
            (at for at in range(unit[-1] + 1, len(messages)) if messages[at]["role"] not in {"system", "developer"}),
            None,
        )
        if after is not None and after <= before_last:
            assert messages[after]["role"] == "user"


def test_a_text_may_take_the_place_of_what_is_gone() -> None:
    turns = [{"role": "system", "content": "Be brief."}, *({"role": "user", "content": str(n)} for n in range(4))]
    left = without(request_of(turns), [1, 2], "Before: 0 and 1.")
    said = [("system", "Be brief."), ("user", "Before: 0 and 1."), ("user", "2"), ("user", "3")]
    assert [(one.role, one.content) for one in left.messages] == said
    assert [(one["role"], one["content"]) for one in left.body["messages"]] == said
