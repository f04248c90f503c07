"""Clearance: the right to make one call to a provider.

Providers take one as an argument, and only a reservation that has been marked as dispatched gives one out: a call that nobody
pays for cannot be written down.
"""

from __future__ import annotations

import msgspec

from headgate.model.money import Usage
from headgate.model.quota import Quota


class Clearance(msgspec.Struct, gc=False):
    """For one attempt under a reservation.

    limit    output tokens that each choice may have; what is held covers them
    tenant   who pays; what two tenants ask for never meets in one call, and what nobody is named for meets nothing
    told     what the provider has said that the attempt used, written down by its adapter however the attempt ends: an answer
             that breaks off has often been counted already
    quota    what it has said of its limits, written down in the same way as soon as its answer's head has come
    waiting  whether nothing of it has been sent yet: it waits for others, to go together
    echo     whether another attempt, which went together with this one, tells the breaker how their call ended
    """

    reservation: str
    limit: int
    tenant: str = ""
    told: Usage | None = None
    quota: Quota | None = None
    waiting: bool = False
    echo: bool = False
