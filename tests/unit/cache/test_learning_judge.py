"""Do two answers say the same?"""

from __future__ import annotations

import pytest

from headgate.cache.judge import LONGEST, Case, ExactJudge, Judge, Judges, MeaningJudge, ModelJudge
from headgate.cache.reading import EmbedderUnavailable
from headgate.model.tenancy import Policy


def case(one: str, other: str, question: str = "When?", **policy: object) -> Case:
    return Case(question=question, one=one, other=other, policy=Policy(**policy))  # type: ignore[arg-type]


class Topics:
    """An embedder with one dimension for each of a few words."""

    identity = "topics"
    words = ("refund", "parcel", "weather")
    dimensions = len(words)

    def __init__(self, most: int = 1_000) -> None:
        self.most = most
        self.read: list[str] = []

    def fits(self, text: str) -> bool:
        return len(text.split()) <= self.most

    async def embed(self, text: str) -> list[float]:
        self.read.append(text)
        if "broken" in text:
            raise EmbedderUnavailable("no")
        counts = [float(text.lower().count(word)) for word in self.words]
        size = sum(count * count for count in counts) ** 0.5 or 1.0
        return [count / size for count in counts]

    async def close(self) -> None:
        return None


class Says:
    """A judge that always says the same, and counts how often it is asked."""

    def __init__(self, said: bool | None) -> None:
        self.said = said
        self.asked = 0

    async def same(self, case: Case) -> bool | None:
        self.asked += 1
        return self.said


async def test_letters_decide_whatever_the_case_and_the_marks() -> None:
    judge = ExactJudge()
    assert await judge.same(case("**Paris.**", "paris"))
    assert await judge.same(case("Ｐａｒｉｓ", "Paris")), "full width is a matter of type"
    assert await judge.same(case("Paris", "London")) is None
    assert await ExactJudge(otherwise=False).same(case("Paris", "London")) is False


async def test_meaning_decides_where_it_is_clear_and_says_nothing_where_it_is_not() -> None:
    judge = MeaningJudge(Topics())
    assert await judge.same(case("The refund is on its way.", "Your refund comes soon.")) is True
    assert await judge.same(case("The refund is on its way.", "The weather is fine.")) is False
    assert await judge.same(case("Refund, parcel.", "Refund, refund, parcel, weather.")) is None


async def test_other_numbers_in_a_short_answer_are_another_answer() -> None:
    embedder = Topics()
    judge = MeaningJudge(embedder)
    assert await judge.same(case("A refund takes 14 days.", "A refund takes 30 days.")) is False
    assert embedder.read == [], "there was nothing to read for that"
    assert await judge.same(case("A refund takes 14 days.", "A refund takes a while.")) is None
    assert await judge.same(case("A refund takes fourteen days.", "The refund comes within 14 days.")) is True


async def test_in_long_answers_other_numbers_leave_it_open() -> None:
    judge = MeaningJudge(Topics())
    long = "Your refund is on its way and you will see it soon. " * 6
    assert await judge.same(case(f"1. {long}", f"{long} 7")) is None
    assert await judge.same(case(f"1. {long}", f"1. {long} Bye.")) is True


async def test_a_long_answer_is_read_in_parts_that_a_vector_holds() -> None:
    embedder = Topics(most=10)
    text = "refund " * 95
    assert await MeaningJudge(embedder).same(case(text, "A refund.")) is True
    assert max(len(part.split()) for part in embedder.read) <= 10
    assert sum(len(part.split()) for part in embedder.read) == 95 + 2


@pytest.mark.parametrize("one", ["broken refund", "refund " * LONGEST, " "])
async def test_what_cannot_be_read_is_not_judged(one: str) -> None:
    assert await MeaningJudge(Topics()).same(case(one, "A refund.")) is None


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("yes", True), ("Yes.", True), ("**NO**", False), ("no, the second is wrong", False), ("", None), (None, None),
        ("I cannot tell", None), ("nothing", None), ("yesterday", None),
    ],
)  # fmt: skip
async def test_a_model_answers_in_one_word_or_not_at_all(reply: str | None, said: bool | None) -> None:
    prompts: list[tuple[str, Policy]] = []

    async def ask(prompt: str, policy: Policy) -> str | None:
        prompts.append((prompt, policy))
        return reply

    judged = case("In {14} days.", "In 30 days.", "When is the refund?", allowed_models=("a",))
    assert await ModelJudge(ask).same(judged) is said
    ((prompt, policy),) = prompts
    assert policy.allowed_models == ("a",)
    for part in ("In {14} days.", "In 30 days.", "When is the refund?"):
        assert part in prompt


async def test_a_model_that_fails_or_is_shown_too_much_says_nothing() -> None:
    async def ask(prompt: str, policy: Policy) -> str | None:
        raise TimeoutError

    assert await ModelJudge(ask).same(case("a", "b")) is None

    async def never(prompt: str, policy: Policy) -> str | None:
        raise AssertionError("too long to be shown")

    assert await ModelJudge(never).same(case("a" * (LONGEST + 1), "b")) is None


async def test_the_first_that_can_tell_decides_and_nobody_after_it_is_asked() -> None:
    dumb, sure, dear = Says(None), Says(False), Says(True)
    judges: list[Judge] = [dumb, sure, dear]
    assert await Judges(judges).same(case("a", "b")) is False
    assert (dumb.asked, sure.asked, dear.asked) == (1, 1, 0)
    assert await Judges([dumb]).same(case("a", "b")) is None
