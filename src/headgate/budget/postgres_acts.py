"""Acts: a posting as the function `headgate_post` takes it, with its rows, what they add to each sum, and their checksums.

Invariant: what a row adds to the sums is what `sums_of` makes of that row, so that they can be proved from the journal alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from headgate.budget.allowance import personal
from headgate.budget.book import counted, part_of
from headgate.budget.budget import Entry, Scope
from headgate.budget.journal import alert_row, row_of
from headgate.budget.memory import billed
from headgate.budget.places import Places
from headgate.budget.postings import Posting, as_json, by_owner, spent_of
from headgate.budget.till import Place, owner_of
from headgate.budget.windows import TOKENS, kind_of

SPOOLED = '{"spooled":true}'
"""The detail of a hold that was taken while the journal could not be asked."""

_encode = msgspec.json.encode
_places = msgspec.json.Decoder(tuple[Place, ...])


def act_of(posting: Posting, places: Places, surcharge: int = 0) -> bytes:
    """A posting as JSON. `surcharge`: nano-USD that the last entry of its bill is billed at beyond its cost."""
    alert = posting.alert
    if alert is not None:
        told = (owner_of(alert.account), alert.window, alert.account, alert.percent)
        return act("alert", posting.id, [alert_row(alert, posting.at)], told=told)
    rows = list(_rows(posting, places, surcharge))
    if posting.act in ("hold", "extend"):
        fence = {} if posting.spooled else {"fence": posting.epochs}
        return act(posting.act, posting.id, rows, **fence, **_kept(posting))
    sums = [(owner_of(place[0]), place[1], place[0], str(amount)) for place, amount in spent_of(posting).items()]
    held = {"amount": posting.amount} if posting.act == "lost" else {}
    return act(posting.act, posting.id, rows, sums=[one for one in sums if kind_of(one[1]) != "minute"], **held)


def act(what: str, id: str, rows: Sequence[bytes], **fields: Any) -> bytes:
    """An act as JSON."""
    return b'{"rows":[%b],%b' % (b",".join(rows), as_json({"act": what, "id": id, **fields})[1:])


def scopes_text(scopes: Sequence[Scope]) -> str:
    """Scopes as `headgate_calls` keeps them, for a till that is filled with them."""
    return _encode([(one.account, one.window, one.cap, one.tokens, one.deployment) for one in scopes]).decode()


def scopes_from(text: str) -> tuple[Scope, ...]:
    """The same read."""
    return tuple(
        Scope(account, window, cap, tokens=tokens, deployment=deployment)
        for account, window, cap, tokens, deployment in msgspec.json.decode(text)
    )


def places_of(text: str) -> tuple[Place, ...]:
    """The places of a row."""
    return _places.decode(text)


def sums_of(rows: Iterable[tuple[str, Entry]]) -> dict[Place, int]:
    """What rows, each with its places, add to each sum. As `part_of` has it; the places of a row are those that its deployment counts on."""
    sums: dict[Place, int] = {}
    for scopes, entry in rows:
        for place in places_of(scopes):
            if place[1].startswith(TOKENS):
                part = entry.usage.total_tokens if entry.source == "live" else 0
            else:
                part = counted(entry, alone=personal(place[0]))
            if part:
                sums[place] = sums.get(place, 0) + part
    return sums


def overage_of(posting: Posting) -> tuple[Scope, ...]:
    """The scopes beyond whose caps a call is billed at another rate."""
    if posting.act != "settle":
        return ()
    return tuple(scope for scope in posting.scopes if scope.allowance is not None and scope.allowance.rule == "overage")


def surcharge_of(posting: Posting, before: Mapping[Place, int]) -> int:
    """What the dearest overage adds to a bill, given what was spent before it. As `Book` reckons it."""
    surcharge = 0
    for scope in overage_of(posting):
        allowance = scope.allowance
        limit = None if allowance is None else allowance.limit(scope.window)
        if allowance is not None and limit is not None:
            spent = part_of(scope, posting.bill)
            beyond = max(0, min(spent, before.get((scope.account, scope.window), 0) + spent - limit))
            surcharge = max(surcharge, beyond * (allowance.percent - 100) // 100)
    return surcharge


def _rows(posting: Posting, places: Places, surcharge: int) -> Iterable[bytes]:
    last = len(posting.bill) - 1
    for number, entry in enumerate(posting.bill):
        attempt, kind, row, detail = number, str(posting.act), entry, ""
        if posting.act == "settle":
            kind = "settle" if number == last else "charge"
            row = billed(entry, surcharge if number == last else 0)
        elif posting.act == "extend":
            attempt = posting.amount
        elif posting.act == "hold" and posting.spooled:
            detail = SPOOLED
        counted_on = places.text(posting.scopes, entry.deployment)
        yield row_of(posting.id, kind, posting.at, row, attempt=attempt, scopes=counted_on, detail=detail or None)


def _kept(posting: Posting) -> dict[str, Any]:
    if posting.act == "extend":
        return {"amount": posting.amount}
    return {
        "owners": list(by_owner(posting.scopes)),
        "scopes": scopes_text(posting.scopes),
        "entry": as_json(msgspec.structs.replace(posting.bill[0], amount=0, billed=0, usage=_NOTHING)).decode(),
        "amount": posting.amount,
        "tokens": posting.tokens,
        "lease": posting.lease,
    }


_NOTHING = Entry(tenant="").usage
