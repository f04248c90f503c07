"""Embedding: the straight line of an embeddings call, which nobody shares and nothing keeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from headgate.budget.estimate import measure_input
from headgate.budget.reservation import Budget
from headgate.coalesce.trail import Trail
from headgate.dispatch import Dispatch
from headgate.limits.limits import Limits, Permit
from headgate.model.chat import Json
from headgate.model.errors import GatewayError
from headgate.model.record import CallRecord
from headgate.reply import Ticket, finished, refusal, too_late
from headgate.routing.routing import Routing
from headgate.telemetry.telemetry import Telemetry


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an embeddings call, in OpenAI's shape, its record, and the permit that tells how the caller's requests stand."""

    body: Json
    record: CallRecord
    permit: Permit


class Embedding:
    """Admit, plan, reserve, dispatch."""

    def __init__(
        self,
        *,
        limits: Limits,
        routing: Routing,
        budget: Budget,
        dispatch: Dispatch,
        telemetry: Telemetry,
        refuse_unpriced: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """As of `Gateway`."""
        self._limits = limits
        self._routing = routing
        self._budget = budget
        self._dispatch = dispatch
        self._telemetry = telemetry
        self._refuse_unpriced = refuse_unpriced
        self._clock = clock

    async def embed(self, ticket: Ticket, body: Json) -> Embedded:
        """Vectors for what `body` holds. Raises every error a chat call may raise."""
        trail = Trail()
        try:
            route = self._routing.check(ticket.caller.policy, body["model"])
            ticket = msgspec.structs.replace(ticket, route=route)
            permit = await self._limits.admit(ticket.caller)
            try:
                async with asyncio.timeout(ticket.wishes.timeout):
                    answer = await self._embed(ticket, body, trail)
            except TimeoutError:
                raise too_late(ticket) from None
            finally:
                permit.release()
        except GatewayError as error:
            error.request_id = ticket.id
            self._telemetry.record(refusal(ticket, error, trail, duration=self._clock() - ticket.started))
            raise
        record = finished(ticket, trail, duration=self._clock() - ticket.started, source="live", cost=trail.cost)
        self._telemetry.record(record)
        return Embedded(body=answer, record=record, permit=permit)

    async def _embed(self, ticket: Ticket, body: Json, trail: Trail) -> Json:
        size = measure_input(body["input"])
        caller, wishes = ticket.caller, ticket.wishes
        terms = self._budget.terms(caller, wishes)
        plan = self._routing.plan_embeddings(
            caller.policy,
            ticket.route,
            likely=size.likely,
            most=size.most,
            priced=terms.capped and self._refuse_unpriced,
        )
        trail.route_reason = plan.reason
        async with self._budget.reserve(
            ticket.id,
            caller,
            wishes,
            route=ticket.route,
            ceiling=plan.ceiling,
            tokens=size.likely,
            deployments=(step.deployment.name for step in plan.steps),
        ) as reservation:
            return await self._dispatch.embed(plan, body, reservation, trail)
