"""Pruning: which turns of a long conversation may go, and the request without the oldest of them.

What the operator and the model were told once (system and developer turns), the user's last turn and what follows from it last always stay.
Everything else goes in *units* that mean nothing apart: before the user's last turn a question with all that was said to it, after it a
call of tools with its results. A result that came late holds everything since its call together.

Invariant: what is left is in its old order, no result has lost its call nor a call its results, and no fewer turns would have done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from headgate.model.chat import ChatRequest, Json, Message

_TOLD = ("system", "developer")
_RESULTS = ("tool", "function")


def units(messages: Sequence[Message]) -> list[tuple[int, ...]]:
    """The places of the turns that may go, in units, the oldest first. Empty when none may."""
    last_user = max((at for at, one in enumerate(messages) if one.role == "user"), default=-1)
    found = _joined(messages, _begun(messages, last_user))
    # What holds the user's last turn stays, and so does the last unit: the answer is wanted to that.
    last = next((index for index in reversed(range(len(found))) if _turns(messages, found[index])), -1)
    free = [unit for index, unit in enumerate(found) if last_user not in unit and index != last]
    return [turns for unit in free if (turns := _turns(messages, unit))]


def cut(messages: Sequence[Message], fits: Callable[[frozenset[int]], bool]) -> tuple[tuple[int, ...], ...] | None:
    """The fewest units, oldest first, without which it `fits`, which is told the places that are left out; None when none suffice.

    Bisects: what fits without some turns must fit without more of them.
    """
    free = units(messages)
    low, high = 0, len(free)
    if not fits(_places(free)):
        return None
    while low < high:
        middle = (low + high) // 2
        if fits(_places(free[:middle])):
            high = middle
        else:
            low = middle + 1
    return tuple(free[:low])


def without(request: ChatRequest, places: Iterable[int], instead: str | None = None) -> ChatRequest:
    """The request without the turns at these places; `instead`: a text of the user's in the place of the first of them."""
    gone = frozenset(places)
    messages = [one for at, one in enumerate(request.messages) if at not in gone]
    body: Json = request.body
    raw = [one for at, one in enumerate(body.get("messages") or ()) if at not in gone]
    if instead is not None and gone:
        messages.insert(min(gone), Message("user", instead))
        raw.insert(min(gone), {"role": "user", "content": instead})
    if body:
        body = {**body, "messages": raw}
    return msgspec.structs.replace(request, messages=tuple(messages), body=body)


def _begun(messages: Sequence[Message], last_user: int) -> list[int]:
    """The unit that each message belongs to, as a number that grows."""
    unit, numbers = 0, []
    for at, one in enumerate(messages):
        if one.role == "user" or at == last_user + 1 or (one.role == "assistant" and at > last_user):
            unit += 1
        numbers.append(unit)
    return numbers


def _joined(messages: Sequence[Message], numbers: list[int]) -> list[list[int]]:
    """The units, those made one between which a result and its call would part."""
    called: dict[str, int] = {}
    since = {number: number for number in numbers}
    for one, number in zip(messages, numbers, strict=True):
        for call in one.tool_calls or ():
            called[call.id] = number
        if one.role in _RESULTS and one.tool_call_id in called:
            since[number] = min(since[number], called[one.tool_call_id])
    found: list[list[int]] = []
    ends: list[int] = []
    for at, number in enumerate(numbers):
        if ends and ends[-1] == number:
            found[-1].append(at)
            continue
        unit = [at]
        while ends and ends[-1] >= since[number]:
            unit = [*found.pop(), *unit]
            ends.pop()
        found.append(unit)
        ends.append(number)
    return found


def _turns(messages: Sequence[Message], unit: Sequence[int]) -> tuple[int, ...]:
    return tuple(at for at in unit if messages[at].role not in _TOLD)


def _places(chosen: Iterable[tuple[int, ...]]) -> frozenset[int]:
    return frozenset(at for unit in chosen for at in unit)
