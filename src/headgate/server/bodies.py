"""Bodies: what the management API reads. People write them, so they are pydantic models, and an unknown field is an error."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from headgate.model.money import from_usd
from headgate.model.tenancy import Principal
from headgate.server.edge import CALLER


class Body(BaseModel):
    """A request body; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


def nano_of(value: Any) -> int:
    """Nano-USD of an amount as people write it, "1.25" or 1.25; a float is taken by its shortest decimal text. Raises ValueError."""
    if isinstance(value, float):
        value = repr(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError('an amount of money is written as "1.25"')  # noqa: TRY004 - pydantic reads ValueError only
    return from_usd(value)


Usd = Annotated[int, BeforeValidator(nano_of), Field(json_schema_extra={"type": "string", "examples": ["10.00"]})]
"""Nano-USD, written in dollars."""


def author(request: Request) -> str:
    """The id of the key that makes a change: the journal keeps it."""
    caller: Principal = request.scope[CALLER]
    return caller.key
