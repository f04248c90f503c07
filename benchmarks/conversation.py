"""How many wrong answers a cache gives within conversations, and how many right ones it finds.

    python -m benchmarks.conversation FOLDER [--half first] [--show]

FOLDER holds TREC CAsT's topics as JSON lines, gzipped: `cast_2019.jsonl.gz` and `cast_2020.jsonl.gz` (made from the evaluation topics at
github.com/daltonj/treccastweb). They are not part of this project. Each line is a conversation with a list `turn`; the turns of 2020 have
`raw_utterance`, a hand-written stand-alone rewrite and an automatic one. The rewrite tells what a turn means: two turns deserve the
same answer iff their rewrites are the same, but for case and punctuation.

In stock is every turn of 2020 after the turns before it, told twice: *raw* and *spelled out* (all turns by hand-written rewrites); and, to
mislead, every raw turn of 2019. Then is asked:

    told otherwise     a turn spelled out; the turns before it in the words of the automatic rewrites
    spelled out now    a turn spelled out; the turns before it raw (only turns whose rewrite differs)
    a shorter way      a turn spelled out; before it only the conversation's first turn
    out of the blue    a turn spelled out; nothing before it
    another topic      a turn spelled out; before it the raw turns of each of the five conversations that are about the nearest things
    left hanging       a raw turn whose rewrite differs, before it such turns: what it means now is not in stock
    never said         a raw turn without the one before it, where only that one had a word that its rewrite adds: the same

Three caches are asked: one that is sent the last turn alone, as if there were no others, and Headgate's with `conversation: digest` and
`context`. They don't learn, and find nothing exactly. `--half first` is for tuning; the report is the second half of each year.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

import msgspec

from headgate.bench import Models, bench, open_models
from headgate.cache.accuracy import interval
from headgate.cache.cache import Entry, Hit, Vector
from headgate.cache.conversation import about, leans, mean
from headgate.cache.fingerprint import fingerprint
from headgate.cache.keeping import Asked
from headgate.cache.reading import Reader
from headgate.cache.tiers import Cache
from headgate.config import Config
from headgate.evaluation.model import completion
from headgate.model.chat import ChatRequest
from headgate.model.tenancy import CacheTerms, Namespace, Wishes

NEAREST: Final = 5
BOUNDS: Final = (0.5, 0.6, 0.7, 0.8)
HOME: Final = Namespace("acme")
KINDS: Final = (
    "told otherwise", "spelled out now", "a shorter way", "out of the blue", "another topic", "left hanging", "never said",
)  # fmt: skip


class Turn(msgspec.Struct, frozen=True, rename={"raw": "raw_utterance", "spelled": "manual_rewritten_utterance",
                                               "automatic": "automatic_rewritten_utterance"}):  # fmt: skip
    """A turn as it was said, and as it was rewritten; the rewrites are empty in 2019."""

    raw: str
    spelled: str = ""
    automatic: str = ""


class Conversation(msgspec.Struct, frozen=True):
    """A conversation, without the answers."""

    number: int
    turn: list[Turn]

    def raw(self, count: int | None = None) -> list[str]:
        """The first turns as they were said."""
        return [one.raw for one in self.turn[:count]]

    def spelled(self, count: int | None = None) -> list[str]:
        """The first turns by their rewrites."""
        return [one.spelled for one in self.turn[:count]]


class Case(msgspec.Struct, frozen=True):
    """A question after others. `meaning` is the rewrite that has its answer; None where that is not in stock."""

    kind: str
    before: Sequence[str]
    text: str
    meaning: str | None


def read(folder: Path, half: str) -> tuple[list[Conversation], list[Conversation]]:
    """Half of 2020 and of 2019."""
    years = []
    for year in (2020, 2019):
        with gzip.open(folder / f"cast_{year}.jsonl.gz") as lines:
            found = [msgspec.json.decode(line, type=Conversation) for line in lines]
        middle = (len(found) + 1) // 2
        years.append(found[:middle] if half == "first" else found[middle:])
    return years[0], years[1]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def meaning(text: str) -> str:
    return " ".join(words(text))


def after(before: Sequence[str], text: str) -> ChatRequest:
    """A request of these turns of a user, each but the last with an answer."""
    turns = [
        {"role": role, "content": said}
        for one in before
        for role, said in (("user", one), ("assistant", f"About: {one}"))
    ]
    return ChatRequest.parse({"model": "auto", "messages": [*turns, {"role": "user", "content": text}]})


def stock(told: list[Conversation], misleading: list[Conversation]) -> Iterator[tuple[str, ChatRequest]]:
    """What each entry means, and its request. What is not rewritten means nothing that is asked."""
    for one in told:
        for turns in (one.raw(), one.spelled()):
            for place, turn in enumerate(one.turn):
                yield meaning(turn.spelled), after(turns[:place], turns[place])
    for one in misleading:
        for place, turn in enumerate(one.turn):
            yield f"{one.number}/{place}", after(one.raw(place), turn.raw)


async def cases(reader: Reader, told: list[Conversation], misleading: list[Conversation]) -> list[Case]:
    found: list[Case] = []
    topics = {one.number: await subject(reader, one.raw()) for one in (*told, *misleading)}
    for one in told:
        here = one.number
        others = sorted(
            (other for other in (*told, *misleading) if other is not one),
            key=lambda other: -cosine(topics[here], topics[other.number]),
        )[:NEAREST]
        for place in range(1, len(one.turn)):
            found += of_turn(one, place, others)
    return found


def of_turn(one: Conversation, place: int, others: list[Conversation]) -> Iterator[Case]:
    turn = one.turn[place]
    means = meaning(turn.spelled)
    differs = meaning(turn.raw) != means
    yield Case("told otherwise", [before.automatic for before in one.turn[:place]], turn.spelled, means)
    yield Case("out of the blue", [], turn.spelled, means)
    if differs:
        yield Case("spelled out now", one.raw(place), turn.spelled, means)
    if place > 1:
        yield Case("a shorter way", one.spelled(1), turn.spelled, means)
    for other in others:
        count = min(place, len(other.turn))
        yield Case("another topic", other.raw(count), turn.spelled, means)
        if differs:
            yield Case("left hanging", other.raw(count), turn.raw, None)
    if place > 1 and differs and newcomers(one, place):
        yield Case("never said", one.raw(place - 1), turn.raw, None)


def newcomers(one: Conversation, place: int) -> set[str]:
    """Words of what a turn means that only the turn before it had said."""
    turn, last = one.turn[place], one.turn[place - 1]
    earlier = {word for text in (*one.raw(place - 1), *one.spelled(place - 1)) for word in words(text)}
    added = set(words(turn.spelled)) - set(words(turn.raw))
    return {word for word in added & set(words(last.raw)) - earlier if len(word) > 3}


async def subject(reader: Reader, turns: Sequence[str]) -> Vector | None:
    """What turns are about, whatever comes after them."""
    vectors = [(await reader.read(text)).vector for text in about(turns)]
    return mean(vectors) if vectors else None


def cosine(one: Vector | None, other: Vector | None) -> float:
    """0 where one is about nothing that can be told."""
    return 0.0 if one is None or other is None else float(one @ other)


class Outcome(msgspec.Struct, frozen=True):
    """A case and what was served for it, with what that means."""

    case: Case
    served: Entry | None
    right: bool


async def outcomes(
    cache: Cache, stocked: list[tuple[str, ChatRequest]], asked: list[Case], *, alone: bool
) -> list[Outcome]:
    """Fill the cache and ask; with `alone` the last turns alone."""
    treated = cache.treatment("auto", CacheTerms(), Wishes())
    for number, (means, told) in enumerate(stocked):
        request = only(told) if alone else told
        question = await cache.question(request, treated)
        kept = Asked(id=str(number), epoch=cache.epoch(HOME.tenant))
        # Each is an entry of its own, however many have the same last turn.
        key = msgspec.structs.replace(fingerprint(HOME, request), digest=number.to_bytes(32))
        await cache.store(key, question, completion(means), treated, kept)
    found = []
    for case in asked:
        request = after([] if alone else case.before, case.text)
        question = await cache.question(request, treated)
        hit = await cache.lookup(fingerprint(HOME, request), question, treated)
        served = hit.entry if isinstance(hit, Hit) else None
        right = served is not None and served.completion.text == case.meaning
        found.append(Outcome(case, served, right))
    return found


def only(request: ChatRequest) -> ChatRequest:
    return after([], request.question or "")


def share(count: int, of: int) -> str:
    if not of:
        return "-"
    low, high = interval(count, of)
    return f"{count:>4} of {of:<4} {count / of:6.1%} ({low:.1%} to {high:.1%})"


def report(title: str, found: list[Outcome], *, show: bool) -> None:
    print(f"\n{title}")
    kinds: dict[str, list[Outcome]] = defaultdict(list)
    for one in found:
        kinds[one.case.kind].append(one)
    for kind in KINDS:
        group = kinds[kind]
        right = sum(one.right for one in group)
        wrong = sum(one.served is not None and not one.right for one in group)
        rightly = share(right, len(group)) if group and group[0].case.meaning is not None else "nothing is in stock"
        print(f"  {kind:<16} right {rightly:<36} wrong {share(wrong, len(group))}")
    hits = [one for one in found if one.served is not None]
    print(f"  wrong, of all hits: {share(sum(not one.right for one in hits), len(hits))}")
    if show:
        for one in hits:
            if not one.right and one.served is not None:
                print(f"    {one.case.kind}: {one.case.before[-1:]} {one.case.text} -> {one.served.text}")


def anaphora(told: list[Conversation]) -> None:
    turns = [turn for one in told for turn in one.turn[1:]]
    differ = [turn.raw for turn in turns if meaning(turn.raw) != meaning(turn.spelled)]
    print("\nthe anaphora test")
    print(f"  seen to lean, of turns whose rewrite differs      {share(sum(map(leaning, differ)), len(differ))}")
    print(
        f"  said to lean, of turns that are spelled out       {share(sum(leaning(turn.spelled) for turn in turns), len(turns))}"
    )
    print(f"  why: {Counter((leans(text) or 'none').partition(':')[0] for text in differ).most_common()}")


def leaning(text: str) -> bool:
    return leans(text) is not None


async def bounds(reader: Reader, told: list[Conversation], asked: list[Case]) -> None:
    """How near the topics of cases are to those in stock, of the turn that has the answer or, were it compared, would be taken for it."""
    places = {meaning(turn.spelled): (one, place) for one in told for place, turn in enumerate(one.turn)}
    texts = {turn.raw: meaning(turn.spelled) for one in told for turn in one.turn}
    near: dict[str, list[float]] = defaultdict(list)
    for case in asked:
        one, place = places[case.meaning or texts[case.text]]
        mine = await subject(reader, case.before or [case.text])
        theirs = await subject(reader, one.spelled(place) if case.meaning else one.raw(place))
        if mine is not None and theirs is not None:
            near[case.kind].append(cosine(mine, theirs))
    print(f"\ntopics as near as        {'  '.join(map(str, BOUNDS))}")
    for kind in KINDS:
        shares = (sum(one >= bound for one in near[kind]) / max(len(near[kind]), 1) for bound in BOUNDS)
        print(f"  {kind:<16} of {len(near[kind]):<3} {' '.join(f'{one:4.0%}' for one in shares)}")


async def measure(folder: Path, half: str, rate: float, *, show: bool) -> None:
    told, misleading = read(folder, half)
    configs = {name: configured(name, rate) for name in ("digest", "context")}
    async with open_models(configs["context"]) as models:
        reader = cast(Reader, models.reads)
        asked = await cases(reader, told, misleading)
        stocked = list(stock(told, misleading))
        print(
            f"{half} half: {len(told)} + {len(misleading)} conversations, {len(stocked)} entries, {len(asked)} questions"
        )
        anaphora(told)
        await bounds(reader, told, asked)
        for title, name in (("last turn alone", "digest"), ("digest", "digest"), ("context", "context")):
            cache = filled(configs[name], models)
            report(title, await outcomes(cache, stocked, asked, alone=title == "last turn alone"), show=show)


def configured(conversation: str, rate: float) -> Config:
    semantic = {"conversation": conversation, "max_error_rate": rate}
    return Config.model_validate({"cache": {"exact": {"mode": "off"}, "semantic": semantic}})


def filled(config: Config, models: Models) -> Cache:
    return bench(config, models, now=lambda: 0.0, learns=False).cache


def main() -> int:
    parser = argparse.ArgumentParser(description="Wrong and right answers of a cache within conversations.")
    parser.add_argument("folder", type=Path, help="where cast_2019.jsonl.gz and cast_2020.jsonl.gz are")
    parser.add_argument("--half", choices=("first", "second"), default="second", help="of each year's conversations")
    parser.add_argument("--max-error-rate", type=float, default=0.005, help="as cache.semantic.max_error_rate")
    parser.add_argument("--show", action="store_true", help="print the wrong hits")
    asked = parser.parse_args()
    asyncio.run(measure(asked.folder, asked.half, asked.max_error_rate, show=asked.show))
    return 0


if __name__ == "__main__":
    sys.exit(main())
