"""Conversations: which of their questions stand alone, and what the conversation is about.

"How long does shipping take?" asks the same in any conversation of a shop, "And to Norway?" only in one where shipping was spoken of. A
question that does not lean on what was said before may be compared across conversations, as long as these are about nearly the same.
Three tests: an anaphora test sees words that point back; where something is merely left out ("What are the EU rules?"), the question
does not speak of its conversation's topic; and the topics of both conversations must be near. What fails one of them, or comes after a turn
that shapes later answers, is compared only within the very same earlier turns.

Invariant: in doubt a question leans. The words are English; what has none of them leans, too. Nothing here loads numpy, and no pattern
repeats a repetition.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headgate.cache.guards.format import wanted
from headgate.cache.guards.lexicon import CONTENT
from headgate.cache.guards.parsed import parsed
from headgate.model.chat import ChatRequest

if TYPE_CHECKING:
    from headgate.cache.reading import Reader

VERSION: Final = "c1"
"""Part of the partition: raised when any question may lean, or any topic be, otherwise than before."""

NEAR: Final = 0.6
"""Cosine of two topics from which on they are nearly the same. This and the next are the lowest, in steps of 0.1, with which no question
is taken for that of another conversation (`benchmarks/conversation.py`, first half)."""

SPEAKS: Final = 0.4
"""Cosine of a question and its topic from which on it speaks of it. Of what leaves it out without a word that points back, the vector is
another: "what licences are needed?", of food trucks."""

TURNS: Final = 6
"""Turns of the user that are looked at for what a conversation is about: the last ones."""

FADES: Final = 0.85
"""What a turn weighs, against 1 for the one after it."""

LONGEST: Final = 500
"""Characters. A longer turn is more than a question: a text to work on, or an example."""

_INSTRUCTING: Final = frozenset({"system", "developer"})
_TOOLS: Final = frozenset({"tool", "function"})
_ENGLISH: Final = frozenset(
    "the are were does did can could would should how what why when where who which of to and than from with has have tell describe "
    "explain give".split()
)
"""Words of nearly every question in English, and of hardly any in its neighbours: "was" and "in" are German, too."""
_BEGINS: Final = frozenset("is do if list show".split())
"""Words that are such ones only where a text begins with them: elsewhere "do" may be Portuguese."""
_WORD = re.compile(r"[a-z]+")
_REACTION = re.compile(
    r"^\W*(?:(?:ok|okay|oh|ah|wow|interesting|thanks|thank you|great|cool|nice|good|i see|yes|yeah|no|well|hmm|sure|right|please|hi|hello"
    r"|hey)\b[\s,.!:;-]*)+"
)
_CLAUSES = re.compile(
    r"[.?!;:,]\s|\b(?:and|but|so|because|if|when|while|since|before|after|until|unless|then|although|though)\b"
)

_JUDGED: Final = (
    "(?:possible|impossible|safe|unsafe|dangerous|legal|illegal|ok|okay|worth|good|bad|better|best|worse|hard|easy|difficult|normal|common"
    "|necessary|healthy|true|wrong|right|important|rude|cheaper|enough|time)"
)
_HARMLESS = re.compile(
    # "Is it safe to": what it stands for comes after it.
    rf"\b(?:(?:is|was|would|will) it|it(?:'s| is| was| would be))(?: be)? (?:\w+ )?{_JUDGED}(?= (?:to|that|for|if|when|not|\w+ing)\b)"
    r"|\b(?:does|do|did|will|would|can) it (?:take|cost|mean|matter|make sense|feel like|help)(?= (?:to|for|if|when|that)\b)"
    r"|\bit (?:takes?|costs?|means?|took) (?=to\b|for\b)|\bwhat(?:'s| is| does) it (?:like|mean|take|cost|feel like) (?=to\b|when\b|for\b)"
    # "Is there": no place.
    r"|\b(?:is|are|was|were|will|would|isn't|aren't|has|have) there\b"
    r"|\bthere(?:'s| is| are| was| were| be| will| has| have| isn't| aren't)\b"
    r"|\bsuch as\b|\b(?:the )?same (?:\w+ )?as\b|\bat the same time\b|\b(?:each other|one another)\b|\bother than\b"
    r"|\b(?:than|from|to|with|of) (?:all )?other\b|\binstead of\b|\b(?:some|any|every|no)(?:one|body|thing|where) else\b|\bone of\b"
    r"|\b(?:no|every|any|some)[ -]one\b"
)
"""Words that only look as if they pointed back."""

_LEANING: Final = (
    (
        "opener",
        re.compile(
            r"^\W*(?:(?:and|but|or|so|also|then|now|what about|how about|what of|what if|why not|how so|how come|for|with|any|more"
            r"|in (?:that|which) case|which (?:is|are|was|were|of|ones?|do|does|did|would|should|will|can|has|have))\b"
            r"|(?:why|how|when|where|who|which|what|really)\W*$)"
        ),
    ),
    (
        "demonstrative",
        re.compile(
            r"\b(?:this|these|those|that's)\b|\bthat\W*$|(?:^\W*|[,.?!]\s*|\b(?:is|was|does|did|do|can|could|will|would|of|about|for|with|to"
            r"|like|than|from|in|on|by|why|how|at|and|but|so|after|before|during|all|using|doing|makes?|made|fix|where|when|if) )that\b"
        ),
    ),
    ("place", re.compile(r"\b(?:there|here)\b")),
    (
        "one",
        re.compile(
            r"\bones?\b(?=\W*$|[,.?!]| (?:is|are|was|were|do|does|did|for|with|to|that|in|on|has|have|should|would|can|will|better|best)\b)"
        ),
    ),
    (
        "other",
        re.compile(
            r"\b(?:others?|another|else|instead|also|again|same|such|former|latter|alternatives?|(?:too|as well|then)(?=\W*$)"
            r"|(?:the|a) (?:first|second|third|last|next|rest)(?=\W*$))\b"
        ),
    ),
    (
        "answer",
        re.compile(
            r"\b(?:you (?:just )?(?:said|say|mentioned|told|wrote|gave|listed|suggested)|your (?:answer|last|list|previous|first|suggestions?)"
            r"|above|earlier|previous(?:ly)?|mentioned|elaborate|clarify|further|examples?(?=\W*$)|more(?=\W*$)"
            r"|more (?:about|on|details?|information|examples?|specific|specifically))\b"
            r"|^\W*(?:please |can you |could you )*(?:summari[sz]e|rephrase|rewrite|translate|continue|go on|go ahead|expand|shorten|repeat)\b"
        ),
    ),
)
_POINTS = re.compile(
    r"\b(?:it|its|it's|it'll|itself|they|them|their|theirs|they're|themselves|he|him|his|he's|himself|she|her|hers|she's|herself)\b"
)
_COMPARES = re.compile(
    r"\b(?:cheaper|faster|bigger|smaller|larger|older|newer|younger|longer|shorter|easier|harder|safer|stronger|weaker|healthier|higher|lower"
    r"|quicker|slower|heavier|lighter|richer|poorer|closer|nearer|warmer|colder|hotter|cleaner|simpler|better|worse|differ(?:s|ed|ent|ently"
    r"|ences?)?|compared?|similar|similarit(?:y|ies)|alike|apart)\b"
)
_PARTNER = re.compile(r"\b(?:than|or|between|versus|vs|compared|from|to|with|among|of)\b")
_EITHER = re.compile(r"\b(?:or|between|than|vs|versus)\b")
_LINKS: Final = "(?:of|in|on|at|to|for|from|with|by|about|between|among|that|which|who|and|or)"
_DEFINITE = re.compile(
    rf"\bthe (?:(?!{_LINKS}\b)[\w'-]+ ){{0,2}}?(?!{_LINKS}\b)[a-z0-9'-]+(?=\W*$|[,.?!;]\s| (?:is|are|was|were|be|been|being|do|does"
    r"|did|has|have|had|can|could|will|would|should|may|might|must|compare|works?|affects?|changes?|looks?|causes?|used?|go|goes|gets?"
    r"|happens?|ends?|starts?|begin|comes?|helps?|become|became|reverse|influence|makes?|made|differ|chosen|stop|stopped|provides?)\b)"
)
"""A thing that is taken to be known: "how reliable is the test?"."""
_UNIQUE = re.compile(
    r"\bthe (?:sun|moon|earth|world|internet|web|sky|universe|sea|ocean|environment|government|economy|past|future|weather|climate|brain"
    r"|heart|(?:human )?body|immune system|stock market)\b"
)
_RELATIONS: Final = frozenset(
    "pro con caus type kind benefit advantag disadvantag cost pric role impact effect differ exampl review process reason purpos histor "
    "origin mean defin rul law treat treatment sign symptom risk side way step part featur method factor theme charact result find key "
    "common popular famous important good best bad big biggest large largest tip fact detail characterist evidenc importanc issue problem "
    "solution option author award name number amount happen prevent usual typical need requir chang special general specific possibl new "
    "old people person time year day thing stuff recommend suggest favorit compar live eat cultur event work license permit location".split()
)
"""Stems of words for what something has or does; alone they do not say what it is: "what are the symptoms?"."""

_ASKS = re.compile(
    r"^\W*(?:and|but|so|or|then|now|also)?\W*(?:what|how|why|when|where|who|whom|whose|which|is|are|was|were|do|does|did|can|could|will|would"
    r"|should|may|has|have|tell|describe|explain|list|show|give|compare|define|i want to know|i(?:'d| would) like to (?:know|learn))\b"
)
_SENTENCES = re.compile(r"(?<=[.?!])\s+")
_ABOUT_ASKER = re.compile(
    r"\b(?:i'm|i am|i've|i have|i was|i live|i work|i use|i got|i only|i don't|i do not|i can't|we're|we are|we have|my|our)\b"
)
_INSTRUCTS = re.compile(
    r"\b(?:answer|respond|reply|from now on|always|never|pretend|imagine|assume|suppose|act as|act like|you are|you're|call me|briefly"
    r"|concise|concisely|in short|in detail|step by step|in (?:simple|plain|layman's) (?:terms|words|language|english)|like i'm|as if|keep it"
    r"|make it|be (?:brief|short|concise|precise|polite|funny|honest)|use|don't|do not|avoid|ignore|only|without"
    r"|for (?:a )?(?:kids?|child|children|beginners?|experts?|five[- ]year))\b"
)


@lru_cache(maxsize=2_048)
def leans(text: str) -> str | None:
    """Why a question may mean something else in another conversation, such as "pronoun:it", or None when it stands alone.

    A pronoun may lean on an earlier clause of the same text, a comparison needs a partner, "the test" something that says which.
    """
    if len(text) > LONGEST:
        return "long"
    plain = _plain(text)
    if not _is_english(plain.lower()):
        return "language"
    rest = _HARMLESS.sub(" x ", plain.lower())
    for name, pattern in _LEANING:
        if found := pattern.search(rest):
            return f"{name}:{found[0].strip()}"
    return _pronoun(rest) or _comparison(rest) or _left_out(plain)


def _plain(text: str) -> str:
    """The text without a reaction to what was said before it: "Interesting. ..."."""
    plain = text.replace("’", "'").strip()
    reaction = _REACTION.match(plain.lower())
    return plain[reaction.end() :] if reaction else plain


def _is_english(lower: str) -> bool:
    words = _WORD.findall(lower)
    return bool(words) and (words[0] in _BEGINS or not _ENGLISH.isdisjoint(words))


def _pronoun(lower: str) -> str | None:
    for clause in _CLAUSES.split(lower):
        if found := _POINTS.search(clause):
            return f"pronoun:{found[0]}"
        if _says_what(clause):
            return None
    return None


def _comparison(lower: str) -> str | None:
    found = _COMPARES.search(lower)
    if found is None or _PARTNER.search(lower, found.end()) or _EITHER.search(lower):
        return None
    return f"comparison:{found[0]}"


def _left_out(plain: str) -> str | None:
    """What ends with a capital is a name, and no thing taken to be known."""
    if found := _DEFINITE.search(_UNIQUE.sub(" ", plain[:1].lower() + plain[1:])):
        return f"definite:{found[0]}"
    return None if _says_what(plain) else "bare"


def _says_what(text: str) -> bool:
    """Whether anything in it is named that one can ask about."""
    return any(
        token.weight == CONTENT and (token.named or token.key.rstrip("e") not in _RELATIONS)
        for token in parsed(text).tokens
    )


@lru_cache(maxsize=2_048)
def steers(text: str) -> str | None:
    """Why an earlier turn of the user may shape the answers to whatever comes after it, in a word, or None when it only asks: it
    instructs ("be brief"), wants a language or a form, tells about the one who asks, or is not a question at all."""
    if len(text) > LONGEST:
        return "long"
    lower = _plain(text).lower()
    if any(not _ASKS.match(one) and not one.endswith("?") for one in _SENTENCES.split(lower)):
        return "statement"
    if not _is_english(lower):
        return "language"
    if _INSTRUCTS.search(lower):
        return "instruction"
    if _ABOUT_ASKER.search(lower):
        return "personal"
    return "form" if wanted(parsed(text)) else None


class Topic(msgspec.Struct, frozen=True):
    """What a question is about, as unit vectors of shape (d,) that the built-in model made.

    own     of the question itself: what a conversation is about that begins with it
    before  of the turns before it; None where it is the first
    """

    own: Any
    before: Any | None = None

    def near(self, stored: bytes | None) -> bool:
        """Whether a question that is near in itself was asked in a conversation about nearly the same; `stored` is its `stored`."""
        from headgate.cache.quantise import restored  # late: numpy, which the reader has loaded by now

        mine = self.own if self.before is None else self.before
        theirs = self.own if stored is None else restored(stored)
        return float(mine @ theirs) >= NEAR

    @property
    def stored(self) -> bytes | None:
        """`before`, in the form of `quantise.quantised`."""
        from headgate.cache.quantise import quantised  # late: numpy, which the reader has loaded by now

        return None if self.before is None else quantised(self.before)


async def topic(reader: Reader, question: str, request: ChatRequest) -> Topic | None:
    """What the request's question is about, where it may be compared across conversations: it opens one, or stands alone in what it says
    and speaks of what its conversation is about. Raises EmbedderUnavailable."""
    earlier = request.messages[:-1]
    if all(message.role in _INSTRUCTING for message in earlier):
        return Topic((await reader.read(question)).vector)
    if any(message.role in _TOOLS or message.tool_calls for message in earlier):
        return None
    turns = about([message.text() or "" for message in earlier if message.role == "user"])
    if leans(question) or not turns or not all(map(reader.fits, turns)):
        return None
    own, *readings = await asyncio.gather(*map(reader.read, (question, *turns)))
    before = mean([reading.vector for reading in readings])
    return Topic(own.vector, before) if float(own.vector @ before) >= SPEAKS else None


def about(said: Sequence[str]) -> tuple[str, ...]:
    """Those of a user's turns, oldest first, that tell what the conversation is about, newest first; none where one of them may shape the
    answers to whatever comes after it.

    They are those of the last `TURNS` that do not lean: "is it treatable?" is about anything. What a conversation begins with has nothing
    to lean on.
    """
    if any(map(steers, said)):
        return ()
    first = max(len(said) - TURNS, 0)
    telling = [text for place, text in enumerate(said) if place >= first and (place == 0 or leans(text) is None)]
    return tuple(reversed(telling))


def mean(vectors: Sequence[Any]) -> Any:
    """The vectors' weighted mean, of length one; each weighs `FADES` of the one before it."""
    total = sum(vector * FADES**age for age, vector in enumerate(vectors))
    return total / math.sqrt(float(total @ total))
