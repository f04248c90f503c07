"""Which entries an invalidation means: the same words for `POST /v1/cache/invalidate`, the management API and the command line.

Invariant: whoever names nothing removes nothing; "all" has to be said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.cache.cache import Selection
from headgate.model.errors import Forbidden, InvalidRequest
from headgate.model.tenancy import Principal

LONGEST = 256
MOST_TAGS = 100
FILTERS = ("tags", "user", "namespace", "model", "entry")


def selection_of(tenant: str, asked: Any) -> Selection:
    """The entries of a tenant that a body means: those that fit every field that is given; of the tags one is enough.

    `all` takes the place of all others. Raises InvalidRequest naming the field.
    """
    if not isinstance(asked, Mapping):
        raise InvalidRequest('The body must be a JSON object such as {"tags": ["prices"]}.')
    for name in asked:
        if name not in FILTERS and name != "all":
            known = ", ".join((*FILTERS, "all"))
            raise InvalidRequest(f"There is no field `{str(name)[:80]}` here, only {known}.", param=str(name)[:80])
    given = {name: asked[name] for name in FILTERS if asked.get(name) is not None}
    everything = asked.get("all")
    if everything is not None and not isinstance(everything, bool):
        raise InvalidRequest("`all` must be true or false.", param="all")
    if everything and given:
        raise InvalidRequest(f"`all` is everything; leave out `{next(iter(given))}`, or `all`.", param="all")
    if not everything and not given:
        raise InvalidRequest(f'Say which entries: {", ".join(FILTERS)}, or "all": true.')
    return Selection(tenant=tenant, **{name: _read(name, value) for name, value in given.items()})


def own_selection_of(caller: Principal, asked: Any) -> Selection:
    """The same for a caller: a key that is bound to a user reaches no other user's entries.

    Raises Forbidden when it names one.
    """
    selection = selection_of(caller.tenant, asked)
    if caller.user is None or selection.user == caller.user:
        return selection
    if selection.user is not None:
        raise Forbidden("This key is one user's and reaches that user's entries only.")
    return Selection(
        tenant=selection.tenant,
        tags=selection.tags,
        user=caller.user,
        namespace=selection.namespace,
        model=selection.model,
        entry=selection.entry,
    )


def _read(name: str, value: Any) -> Any:
    if name == "tags":
        tags = value if isinstance(value, list) else [value]
        if not tags or len(tags) > MOST_TAGS:
            raise InvalidRequest(f"`tags` must be a list of 1 to {MOST_TAGS} tags.", param="tags")
        return tuple(_text(name, tag) for tag in tags)
    # The default namespace is the one without a name.
    return value if name == "namespace" and value == "" else _text(name, value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > LONGEST:
        raise InvalidRequest(f"`{name}` must hold texts of 1 to {LONGEST} characters.", param=name)
    return value
