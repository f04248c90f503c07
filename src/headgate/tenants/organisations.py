"""Organisations: what tenants belong to, and what may lie in one another. Each has budgets of its own, which all beneath it share.

Invariant: every parent exists and no organisation lies in itself, also when several processes change them at once; so the way
up always ends. The directory keeps it, by the rules of this file.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from headgate.model.errors import Conflict, NotFound
from headgate.tenants.names import checked_name

if TYPE_CHECKING:
    from headgate.tenants.tenants import Directory


class Organisation(msgspec.Struct, frozen=True, kw_only=True):
    """One organisation. `parent` is the one it lies in; `created` is unix seconds."""

    name: str
    parent: str | None = None
    created: float = 0.0


class Organisations:
    """The registry: every change applies at once here, and within two seconds in other processes."""

    def __init__(
        self, directory: Directory, *, changed: Callable[[], None], now: Callable[[], float] = time.time
    ) -> None:
        """`changed` is told after each change; `now` is in unix seconds."""
        self._directory = directory
        self._changed = changed
        self._now = now

    async def all(self) -> list[Organisation]:
        """All, by name."""
        return sorted(await self._directory.organisations(), key=lambda one: one.name)

    async def called(self, name: str, *, param: str | None = None) -> Organisation:
        """The one of this name. Raises NotFound for the field `param`, naming one that is nearly so called."""
        known = await self._directory.organisations()
        for one in known:
            if one.name == name:
                return one
        near = difflib.get_close_matches(name, [each.name for each in known], n=1)
        raise no_organisation(name, f"; did you mean {near[0]}?" if near else ".", param=param)

    async def put(self, name: str, parent: str | None = None) -> Organisation:
        """Make one, or move it elsewhere. Raises InvalidRequest, NotFound for the parent, and Conflict for a cycle."""
        known = {one.name: one for one in await self._directory.organisations()}
        created = known[name].created if name in known else self._now()
        wanted = Organisation(name=checked_name(name), parent=parent, created=created)
        await self._directory.put_organisation(wanted)
        self._changed()
        return wanted

    async def drop(self, name: str) -> None:
        """Delete one. Raises NotFound, and Conflict while a tenant or an organisation lies in it."""
        if not await self._directory.drop_organisation(name):
            await self.called(name)
        self._changed()

    async def lineage(self, name: str | None) -> tuple[str, ...]:
        """An organisation and those above it, nearest first."""
        return () if name is None else lineage(await self._directory.organisations(), name)

    async def beneath(self, name: str) -> frozenset[str]:
        """An organisation and all that lie in it, at any depth."""
        parents = _parents(await self._directory.organisations())
        return frozenset(one for one in parents if name in _way_up(parents, one))


def lineage(known: Iterable[Organisation], name: str) -> tuple[str, ...]:
    """An organisation and those above it, nearest first; only itself when it is not known."""
    return _way_up(_parents(known), name)


def check_place(known: Collection[Organisation], wanted: Organisation) -> None:
    """Whether an organisation may be put there. Raises NotFound for its parent, and Conflict when it would lie in itself."""
    if wanted.parent is None:
        return
    if wanted.parent == wanted.name:
        raise _cycle(wanted, "itself")
    if all(one.name != wanted.parent for one in known):
        raise no_organisation(wanted.parent, param="parent")
    way = lineage(known, wanted.parent)
    if wanted.name in way:
        raise _cycle(wanted, f"{wanted.parent}, which lies in {wanted.name}")


def check_unused(known: Iterable[Organisation], name: str, tenants: Collection[str]) -> None:
    """Whether an organisation may go; `tenants` are the names of those in it. Raises Conflict naming what is still there."""
    children = [f"organisation {one.name}" for one in known if one.parent == name]
    inside = [*children, *(f"tenant {tenant}" for tenant in tenants)]
    if inside:
        more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
        raise Conflict(f"In the organisation {name} there are still {', '.join(inside[:3])}{more}; move them first.")


def no_organisation(name: str, ending: str = ".", *, param: str | None = None) -> NotFound:
    """There is no such organisation."""
    return NotFound(f"There is no organisation {name[:80]!r}{ending}", param=param)


def _parents(known: Iterable[Organisation]) -> dict[str, str | None]:
    return {one.name: one.parent for one in known}


def _way_up(parents: Mapping[str, str | None], name: str) -> tuple[str, ...]:
    found: list[str] = []
    above: str | None = name
    while above is not None:
        found.append(above)
        above = parents.get(above)
    return tuple(found)


def _cycle(wanted: Organisation, where: str) -> Conflict:
    return Conflict(f"The organisation {wanted.name} cannot lie in {where}.", param="parent")
