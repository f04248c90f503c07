"""Questions that must not be answered by meaning at all, because their answer is another one tomorrow or for somebody else.

Invariant: looks at the first `_LOOKED_AT` characters only, from left to right; no pattern repeats a repetition.
"""

from __future__ import annotations

import re
from typing import Final, Literal

_LOOKED_AT: Final = 8_000

_SAYS_SOMETHING = re.compile(r"[^\W_]")
_VOLATILE = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|right now|just now|at the moment|at present|as of now|latest|up[- ]to[- ]date|breaking news"
    r"|this (?:very )?(?:minute|hour|morning|afternoon|evening|week|weekend|month|quarter|year|season)"
    r"|(?:next|last|past|coming) (?:few )?(?:minutes?|hours?|nights?|weeks?|weekends?|months?)"
    r"|current(?:ly)? (?:\w+ )?(?:price|prices|rate|rates|status|time|date|weather|temperature|version|score|scores|standings|value|events?"
    r"|news|situation|balance|stock|offers?|deals?|wait|traffic|president|ceo|prime minister|champions?|record|market)"
    r"|(?:what|which) (?:time|day|date|year|month) is it|what is the (?:time|date)|what's the (?:time|date)|time in [a-z]+ now|now\W*$"
    r"|(?:what|how) (?:is|was|will|'s) the weather|weather (?:in|for|at|forecast|like)|forecast for|live scores?|who (?:is|'s) winning"
    r"|(?:price|value|rate) of (?:gold|silver|oil|petrol|bitcoin|btc|ethereum|the dollar)|(?:stock|share|gold|bitcoin|oil|petrol) prices?"
    r"|exchange rate|open now|in stock|trending|is \w+ down)\b"
    r"|\bnow\W*$",
)
"""What is true at one time: an answer from stock would be from another."""

_OWN: Final = (
    "orders?|accounts?|balance|subscriptions?|invoices?|bills?|payments?|refunds?|parcels?|packages?|shipments?|delivery|deliveries"
    "|bookings?|reservations?|tickets?|appointments?|cart|basket|contract|claims?|card|transactions?|transfer|statement|salary|payslip"
    "|paycheck|meetings?|calendar|inbox|emails?|messages?|files?|documents?|schedule|flight|quota|usage|license|licence|warranty|case"
    "|application|results?|grades?|points|credits?|address|purchases?|premium|deductible|loan|mortgage|prescription|plan"
)
_PERSONAL = re.compile(
    rf"\b(?:my|our) (?:\w+ ){{0,2}}?(?:{_OWN})\b|\b(?:do i owe|do i have left|am i (?:eligible|registered|subscribed|enrolled|logged)|was i (?:charged|billed)|i was (?:charged|billed))\b"
)
"""What belongs to the one who asks."""
_GENERAL = re.compile(
    r"\b(?:how (?:do|can|could|should|would|might|to|does one|many people)|(?:can|could|may|should|must|shall|do|would|will) (?:i|we|you)"
    r"|what (?:happens|should|can|do i do|to do|are the (?:ways|steps)|is the (?:best|easiest|fastest) way)|is it (?:possible|safe|ok|legal)"
    r"|(?:which|what) \w+ should|if)\b"
)
"""Asked for a way, the same for everybody: "how do I close my account"."""

_ACTS = re.compile(
    r"^\W*(?:(?:hi|hello|hey|please|pls|kindly|now|ok|okay|just|then|go ahead and|can you|could you|would you|will you|i want you to"
    r"|i'd like you to|i need you to|you should|let's|help me)[\s,!:]+){0,4}(?:"
    r"(?:send|buy|order|book|pay|transfer|refund|ship|cancel|unsubscribe|subscribe|schedule|reschedule|charge|withdraw|deposit|e-?mail|call"
    r"|text|forward|invite|reply|submit|purchase|sell|donate|reserve|notify|remind|post|publish|tweet|deploy)"
    r"\s+(?:a|an|the|my|our|me|us|him|her|them|it|this|that|these|those|all|\w+@\S+|[$€£]?\d\S*|two|three|one|more)\b"
    r"|(?:delete|remove|close|update|change|reset|upgrade|downgrade|block|unblock|turn|switch|rename|move|archive|wipe|erase|revoke|restart"
    r"|shut|disable|enable|add|save|sign|approve|reject|accept|decline|confirm|activate|deactivate|suspend|set|start|stop|lock|unlock|clear"
    r"|mute|play|pause)\s+(?:(?:off|on|up|down|out|all|of)\s+){0,2}(?:my|our|me|us|him|her|them|it|this|that|these|those|everything)\b)"
)
"""Told to do something that is not done again by an answer from stock."""


def unfit(text: str) -> Literal["empty", "effect", "volatile", "personal"] | None:
    """Why a question must not be answered by meaning, or None: it says nothing, has an effect, asks for what changes, or for what is
    one's own. Advice is neither ("how do I improve my English")."""
    lower = text[:_LOOKED_AT].lower().replace("’", "'")
    if not _SAYS_SOMETHING.search(lower):
        return "empty"
    if _ACTS.search(lower):
        return "effect"
    if _VOLATILE.search(lower):
        return "volatile"
    return "personal" if _PERSONAL.search(lower) and not _GENERAL.search(lower) else None
