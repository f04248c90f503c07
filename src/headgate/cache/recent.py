"""Recent: which answers from stock were given out lately, so that what is said of them later can be understood.

Invariant: bounded for each tenant and in all; a tenant's feedback never reaches another's answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from headgate.cache.labels import Served

OF_A_TENANT = 10_000
IN_ALL = 100_000


class Recent:
    """Served answers by tenant and request id; the oldest make room."""

    def __init__(self, *, of_a_tenant: int = OF_A_TENANT, in_all: int = IN_ALL) -> None:
        """`of_a_tenant` and `in_all`: how many are remembered."""
        self._of_a_tenant = of_a_tenant
        self._in_all = in_all
        self._tenants: OrderedDict[str, OrderedDict[str, Served]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def keep(self, served: Served) -> None:
        """Remember one."""
        own = self._tenants.setdefault(served.tenant, OrderedDict())
        self._tenants.move_to_end(served.tenant)
        self._count += served.id not in own
        own[served.id] = served
        if len(own) > self._of_a_tenant:
            own.popitem(last=False)
            self._count -= 1
        elif self._count > self._in_all:
            self._forget_one()

    def recall(self, answers: Iterable[Served]) -> None:
        """Remember those of an earlier run, oldest first."""
        for served in answers:
            self.keep(served)

    def find(self, tenant: str, id: str) -> Served | None:
        """What this request of the tenant was given."""
        own = self._tenants.get(tenant)
        return None if own is None else own.get(id)

    def _forget_one(self) -> None:
        """The oldest of the tenant that was longest without a new one."""
        tenant, own = next(iter(self._tenants.items()))
        own.popitem(last=False)
        self._count -= 1
        if not own:
            del self._tenants[tenant]
