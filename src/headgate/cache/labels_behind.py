"""The durable log of labels: rows that are written behind.

What was learnt in the last moments before a crash may be missing; it is learnt again from new labels. Nothing in it was written by a
caller but ids and namespaces.
"""

from __future__ import annotations

import contextlib

import msgspec

from headgate.cache.labels import Label, Served
from headgate.storage.behind import Behind, Row, Rows, Table

LABELS = 20_000
ANSWERS = 20_000
"""Newest rows that are kept of each."""

_LABELS = Table(
    "labels",
    {
        "tenant": "text",
        "namespace": "text",
        "scope": "blob",
        "entry": "text",
        "confidence": "real",
        "correct": "integer",
        "origin": "text",
        "served": "integer",
        "uniform": "integer",
        "at": "real",
        "own": "text",
    },
    LABELS,
)
_ANSWERS = Table(
    "answers",
    {
        "id": "text",
        "tenant": "text",
        "namespace": "text",
        "scope": "blob",
        "entry": "text",
        "confidence": "real",
    },
    ANSWERS,
)
TABLES = (_LABELS, _ANSWERS)


class LabelsBehind:
    """A LabelLog in rows."""

    def __init__(self, behind: Behind) -> None:
        """Made by `open`."""
        self._behind = behind

    @classmethod
    async def open(cls, rows: Rows) -> LabelsBehind:
        """Read what is there. Never raises for what is wrong with it: that is said in the log."""
        return cls(await Behind.open(rows, "what was learnt", TABLES))

    def label(self, label: Label) -> None:
        """Write one label soon."""
        space = label.scope.namespace
        row = (
            *(space.tenant, space.name, label.scope.digest, label.entry, label.confidence, label.right, label.origin),
            *(label.served, label.uniform, label.at, label.own),
        )
        self._behind.add("labels", row)

    def served(self, served: Served) -> None:
        """Write one answer that was found by meaning soon. Others are not written: there are many, and feedback that comes after
        a restart can still name their entries."""
        scope = served.scope
        if scope is None:
            return
        row = (served.id, served.tenant, scope.namespace.name, scope.digest, served.entry, served.confidence)
        self._behind.add("answers", row)

    def past(self) -> tuple[list[Label], list[Served]]:
        """What was there when it was opened, each oldest first. Ask once."""
        return _read(self._behind.past("labels"), self._behind.past("answers"))

    async def others(self) -> tuple[list[Label], list[Served]]:
        """See LabelLog."""
        rows = await self._behind.others()
        return _read(rows.get("labels", []), rows.get("answers", []))

    async def close(self) -> None:
        """Write what waits and let go of the rows."""
        await self._behind.close()


def _read(labels: list[Row], answers: list[Row]) -> tuple[list[Label], list[Served]]:
    return [label for row in labels for label in _label(row)], [one for row in answers for one in _served(row)]


def _label(row: Row) -> list[Label]:
    """The label of a row, or none if it is not one."""
    tenant, namespace, scope, entry, confidence, correct, origin, served, uniform, at, own = row
    with contextlib.suppress(msgspec.ValidationError):
        fields = {
            "entry": entry,
            "confidence": confidence,
            "right": bool(correct),
            "origin": origin,
            "at": at,
            "own": own,
        }
        where = {"namespace": {"tenant": tenant, "name": namespace}, "digest": scope}
        return [msgspec.convert({**fields, "scope": where, "served": bool(served), "uniform": bool(uniform)}, Label)]
    return []


def _served(row: Row) -> list[Served]:
    """The served answer of a row, or none if it is not one."""
    id, tenant, namespace, scope, entry, confidence = row
    with contextlib.suppress(msgspec.ValidationError):
        fields = {"id": id, "tenant": tenant, "entry": entry, "tier": "semantic", "confidence": confidence}
        where = {"namespace": {"tenant": tenant, "name": namespace}, "digest": scope}
        return [msgspec.convert({**fields, "scope": where}, Served)]
    return []
