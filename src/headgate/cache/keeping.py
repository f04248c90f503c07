"""Keeping: what is put in stock of an answer, beside the answer."""

from __future__ import annotations

import msgspec

from headgate.cache.cache import Entry, Question
from headgate.cache.treatment import Treatment
from headgate.model.chat import Completion
from headgate.model.tenancy import Key

_encode = msgspec.msgpack.Encoder().encode


class Asked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who asked for an answer, and how it came about: what is kept beside it.

    id          the flight's, which becomes the entry's
    epoch       the tenant's epoch when it was asked for
    worth       what it cost to make, nano-USD
    deployment  what made it
    model       what was asked for
    user        the end user, where one was named
    tags        names under which it can be invalidated
    """

    id: str
    epoch: int
    worth: int = 0
    deployment: str = ""
    model: str = ""
    user: str | None = None
    tags: tuple[str, ...] = ()


def entry(
    key: Key, question: Question | None, completion: Completion, treated: Treatment, asked: Asked, *, now: float
) -> Entry:
    """The entry that an answer becomes; `now` is the store's clock, unix seconds."""
    exact = Entry(
        id=asked.id,
        key=key,
        answer=_encode(completion),
        stored=now,
        expires=now + treated.exact_ttl,
        worth=asked.worth,
        deployment=asked.deployment,
        model=asked.model,
        user=asked.user,
        tags=asked.tags,
    )
    if question is None or question.vector is None:
        return exact
    from headgate.cache.quantise import quantised  # late: numpy, which the embedder has loaded by now

    return msgspec.structs.replace(
        exact,
        partition=question.partition,
        text=question.text,
        vector=quantised(question.vector),
        topic=None if question.topic is None else question.topic.stored,
        semantic_until=now + treated.semantic_ttl,
    )
