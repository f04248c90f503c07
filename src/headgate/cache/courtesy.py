"""Courtesy: what people put around a question without asking anything by it.

"Hello. How do I track my order? Many thanks" asks what "How do I track my order?" asks, but a vector is of the whole text, and of two
short questions the greeting may be the larger half. So it is cut off before questions are compared by meaning. The exact tier never
sees this. One invariant: what is left is a part of the text, and never nothing.
"""

from __future__ import annotations

import re
from typing import Final

VERSION: Final = "c1"
"""Part of the partition: raised when any text may be cut otherwise."""

_MOST: Final = 4
"""Courtesies that are cut off at either end."""
_LONGEST: Final = 80
"""Characters at either end that are looked at: no courtesy is longer, and a text may be long."""

_OPENING: Final = re.compile(
    r"\s*(?:"
    r"(?:hi|hello|hey|hiya|greetings|good\s+(?:morning|afternoon|evening|day))(?:,?\s+(?:there|all|everyone|team|folks))?\s*[.,!:;-]+"
    r"|(?:i'?m\s+)?sorry\s+(?:to\s+(?:bother|trouble|disturb)\s+you|for\s+(?:the\s+)?(?:bother|trouble))\s*[.,!:;-]+"
    r"|(?:just\s+)?(?:a\s+)?quick\s+question\s*[.,!:;-]+"
    r"|(?:please\s+|pls\s+)?(?:(?:can|could|would)\s+you\s+(?:please\s+)?)?tell\s+me\s*[:,]"
    r"|(?:please|pls)\s*[:,]"
    r")\s*(?=\S)",
    re.IGNORECASE,
)
_CLOSING: Final = re.compile(
    r"(?:(?<=[?!.,;:)\"'])|\s*[,.;!?\n-]+|(?<=\n))\s*(?:"
    r"(?:many\s+|much\s+)?thanks(?:\s+(?:a\s+lot|so\s+much|in\s+advance|again))?"
    r"|thank\s+you(?:\s+(?:very\s+much|so\s+much|in\s+advance))?"
    r"|cheers|(?:kind|best|warm)\s+regards"
    r")\s*[.!,]*\s*$"
    r"|(?<=\w)\s*,\s*(?:please|pls)(?=\s*[.?!]*\s*$)",
    re.IGNORECASE,
)
_ENDS: Final = ".?!"


def bare(text: str) -> str:
    """The text without greetings before it and thanks after it. Bounded in time; never raises."""
    for _ in range(_MOST):
        found = _OPENING.match(text[:_LONGEST])
        if found is None:
            break
        text = text[found.end() :]
    for _ in range(_MOST):
        start = max(0, len(text) - _LONGEST)
        found = _CLOSING.search(text, start)
        if found is None or not text[: found.start()].strip():
            break
        # The mark that ends the question is the question's own.
        cut = text[found.start() : found.end()].lstrip()
        mark = cut[0] if cut and cut[0] in _ENDS else ""
        text = text[: found.start()] + mark + text[found.end() :]
    return text.strip() or text
