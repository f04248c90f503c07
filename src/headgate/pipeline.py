"""Gateway: the two straight lines that every call goes along. Everything that is policy is read here from top to bottom.

`chat` is what each caller does; `_fly` is what happens once for all who ask the same thing. A later step cannot be called without the
value of the earlier one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Self

import msgspec

from headgate.budget.estimate import measure
from headgate.budget.reservation import Budget
from headgate.budget.terms import Terms
from headgate.cache.cache import Hit, Miss
from headgate.cache.enclosed import refers
from headgate.cache.fingerprint import bypass_reason, fingerprint, to_the_letter
from headgate.cache.tiers import Cache
from headgate.checking import Call, Checking, Heard
from headgate.coalesce.coalesce import Flight, Flights
from headgate.coalesce.relay import Relay
from headgate.coalesce.sharing import Sharing
from headgate.coalesce.trail import Trail
from headgate.condensing import Condensing
from headgate.dispatch import Dispatch
from headgate.embedding import Embedded, Embedding
from headgate.following import Following, Sought
from headgate.limits.limits import Limits, Permit, RateState
from headgate.model.chat import ChatRequest, Completion, Json
from headgate.model.errors import GatewayError, NotFound, Rejected
from headgate.model.ids import Ids
from headgate.model.record import CallRecord
from headgate.model.tenancy import Key, Namespace, Principal, Wishes
from headgate.paying import Paying
from headgate.relaying import Relaying
from headgate.repeats import Repeats
from headgate.reply import Recourse, Reply, Ticket, refusal
from headgate.routing.outcomes_keeping import Outcomes
from headgate.routing.routing import Decision, Routing
from headgate.stock import STALE, Errand, Refreshes, anew, asked, at_hand, found, lasting, missed, nothing_cached
from headgate.telemetry.telemetry import Telemetry

log = logging.getLogger(__name__)


class Gateway:
    """The engine behind every door. Use it as `async with gateway:`; leaving drains what is in flight."""

    def __init__(
        self,
        *,
        limits: Limits,
        cache: Cache,
        flights: Flights,
        routing: Routing,
        budget: Budget,
        dispatch: Dispatch,
        telemetry: Telemetry,
        checking: Checking,
        repeats: Repeats | None = None,
        outcomes: Outcomes | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] | None = None,
        sharing: Sharing | None = None,
        relay: Relay | None = None,
        refuse_unpriced: bool = True,
        grace: float = 30.0,
    ) -> None:
        """`now` is the wall clock of records, `clock` the monotonic one of durations.

        outcomes  what keeps how well calls of routes with tiers went, for who decides later
        checking  what watches whether answers from stock are right
        sharing   which calls share one in flight; by default all that may
        relay     what other replicas' flights are joined through; None where there are none
        refuse_unpriced  whether a tenant whose money is limited may not use a model without a price
        grace     seconds that flights may go on when the gateway closes
        """
        self.limits = limits
        self.cache = cache
        self.flights = flights
        self.routing = routing
        self.budget = budget
        self.dispatch = dispatch
        self.telemetry = telemetry
        self.repeats = repeats or Repeats()
        self.checking = checking
        self.outcomes = outcomes
        self._now = now
        self._clock = clock
        self._new_id = new_id or Ids()
        self._sharing = sharing or Sharing()
        self._following = Following(cache, flights, clock=clock)
        self.relaying = Relaying(relay, flights, clock=clock)
        self._paying = Paying(budget, routing)
        self._refuse_unpriced = refuse_unpriced
        self._grace = grace
        self._embedding = Embedding(
            limits=limits,
            routing=routing,
            budget=budget,
            dispatch=dispatch,
            telemetry=telemetry,
            refuse_unpriced=refuse_unpriced,
            clock=clock,
        )
        self.condensing = Condensing(routing, budget, dispatch, refuse_unpriced, clock=clock, new_id=self._new_id)
        self.refreshes = Refreshes()

    async def chat(self, caller: Principal, request: ChatRequest, wishes: Wishes | None = None) -> Reply:
        """Admit the caller and join, or start, the flight that answers it.

        Raises UnknownModel, ModelNotAllowed, RateLimited or Overloaded here; what happens later is raised by the Reply.
        """
        ticket = self._ticket(caller, wishes or Wishes(), request.model, stream=bool(request.stream))
        try:
            ticket = msgspec.structs.replace(ticket, route=self.routing.check(caller.policy, request.model))
            permit = await self.limits.admit(caller)
        except GatewayError as error:
            self._refused(ticket, error)
            raise
        try:
            return self._joined(ticket, permit, request)
        except BaseException as error:
            permit.release()
            if isinstance(error, GatewayError):
                self._refused(ticket, error)
            raise

    def _refused(self, ticket: Ticket, error: GatewayError) -> None:
        """A call that ends before there is anything to read."""
        error.request_id = ticket.id
        self.telemetry.record(refusal(ticket, error, Trail(), duration=self._clock() - ticket.started))

    def _joined(self, ticket: Ticket, permit: Permit, request: ChatRequest) -> Reply:
        """What is at hand, or a flight. No await: nobody can come between the look and the join."""
        caller, wishes = ticket.caller, ticket.wishes
        exact = fingerprint(Namespace(caller.tenant, wishes.namespace), request)
        if wishes.idempotency_key is not None:
            first = self.repeats.find(caller.tenant, wishes.idempotency_key, exact.digest)
            if first is not None:
                return self._reply(ticket, request, first, permit)
        bypass = "no-store" if wishes.cache == "no-store" else bypass_reason(request)
        key = None if bypass else exact
        over = None if key is None else at_hand(self.cache, ticket.id, key, request, wishes)
        if over is not None:
            return self._reply(ticket, request, over, permit)
        flight, leads, recourse = self._flown(ticket, key, bypass, request)
        if wishes.idempotency_key is not None:
            self.repeats.keep(caller.tenant, wishes.idempotency_key, exact.digest, flight)
        return self._reply(ticket, request, flight, permit, leads=leads, recourse=recourse)

    def _flown(
        self, ticket: Ticket, key: Key | None, bypass: str | None, request: ChatRequest
    ) -> tuple[Flight, bool, Recourse | None]:
        """The flight to read, joined or started; whether this caller leads it; and what a follower can do about it."""
        caller, wishes = ticket.caller, ticket.wishes
        mode = self._sharing.of(ticket.route, caller.policy, wishes)

        def join(id: str, *budgets: Hashable, alone: bool = key is None or mode == "off") -> tuple[Flight, bool]:
            epoch = self.cache.epoch(caller.tenant)
            errand = Errand(ticket, request, key, bypass, epoch, mode, over=bool(budgets))
            shared = None if alone else (*errand.shared, *budgets)
            if shared in self.flights.apart:
                shared = None
            abandoned = caller.policy.abandoned
            return self.flights.join(shared, id, abandoned, lambda one: self._fly(one, errand), stream=ticket.stream)

        def again(alone: bool) -> tuple[Flight, bool]:
            return join(self._new_id(), self.budget.terms(caller, wishes).personal, alone=alone)

        flight, leads = join(ticket.id)
        return flight, leads, None if leads else Recourse(self._patience(ticket), self.flights.starts.turn, again)

    def _patience(self, ticket: Ticket) -> float:
        """Seconds that a follower waits for the first part of an answer."""
        asked = ticket.wishes.patience
        return self.flights.patience.of(ticket.route, stream=ticket.stream) if asked is None else asked

    async def _fly(self, flight: Flight, errand: Errand) -> None:
        """Answer one question, once, for all its readers."""
        ticket, request, key, trail = errand.ticket, errand.request, errand.key, flight.trail
        caller, wishes = ticket.caller, ticket.wishes
        terms = self.budget.terms(caller, wishes)
        frugal = bool(terms.degrading) and await self.budget.degraded(terms)
        user = wishes.user or caller.user
        decision = await self.routing.decide(request, caller, id=flight.id, user=user, frugal=frugal)
        trail.cache_reason = errand.bypass
        if key is None:
            if wishes.cache == "only-if-cached":
                raise nothing_cached()
            flight.land(await self._bought(flight, errand, terms, decision))
            return
        trail.cache = "miss"
        treated = self.cache.treatment(
            ticket.route, self.cache.terms(caller.policy), wishes, decision.confidence, decision.strategy
        )
        if refers(request):
            # What lies behind an address may be another thing tomorrow.
            treated = msgspec.structs.replace(treated, exact=False)
        # In flight it is compared with others, whatever is in stock.
        question = await self.cache.question(request, treated, None if errand.compared(flight) else key)
        if question is None:
            trail.cache_reason = self.cache.why_not(request, treated)
        call = Call(ticket, request, decision, key, question, treated)
        with self._following.entered(flight, call, errand) as sought:
            await self._answer(flight, errand, call, terms, sought)

    async def _answer(self, flight: Flight, errand: Errand, call: Call, terms: Terms, sought: Sought | None) -> None:
        """From stock, from another flight that answers the same, here or on another replica, or bought and kept."""
        trail, wishes = flight.trail, call.ticket.wishes
        looked: Hit | Miss = Miss()
        if wishes.cache != "no-cache":
            began = self._clock()
            looked = await self.cache.lookup(call.key, call.question, call.treated)
            trail.lookup = self._clock() - began
        if isinstance(looked, Hit):
            completion = looked.entry.completion
            found(trail, looked, completion)
            flight.land(completion)
            return self.checking.watch(call, looked, completion)
        missed(trail, looked)
        if wishes.cache == "only-if-cached":
            raise nothing_cached()
        patience = self._patience(call.ticket)
        twin = await self._following.followed(flight, sought, looked, call.treated, patience)
        if twin is not None:
            flight.land(twin.completion)
            return self.checking.watch(call, twin.hit, twin.completion)
        async with self.relaying.joined(flight, errand, terms.personal, patience) as relayed:
            if relayed is not None:
                return flight.land(relayed)
            began = self._clock()
            completion = await self._bought(flight, errand, terms, call.decision)
            if not call.ticket.stream:
                self.flights.patience.observe(call.ticket.route, self._clock() - began)
            trail.entry = None if trail.own else flight.id
            flight.apart = trail.own or not completion.complete
            flight.land(completion)
            if not trail.own:
                await self.cache.store(call.key, call.question, completion, call.treated, asked(errand, flight))
                self.checking.watch(call, looked, completion, own=flight.id)

    async def _bought(self, flight: Flight, errand: Errand, terms: Terms, decision: Decision) -> Completion:
        """The answer of a provider: plan, reserve, dispatch. A refusal that would come again is remembered."""
        ticket, request, key, trail = errand.ticket, errand.request, errand.key, flight.trail
        caller, size = ticket.caller, measure(request)
        expected = self.budget.outputs.expected(caller.tenant, ticket.route)
        plan = self.routing.plan(
            decision,
            caller.policy,
            request,
            likely=size.likely,
            most=size.most,
            priced=terms.capped and self._refuse_unpriced,
            expected=expected,
            measure=measure,
        )
        plan = await self.condensing.applied(plan, request, ticket, expected)
        trail.route_reason, trail.route_confidence, trail.decision = plan.reason, plan.confidence, decision
        async with self.budget.reserve(
            flight.id,
            caller,
            ticket.wishes,
            route=ticket.route,
            ceiling=plan.ceiling,
            least=plan.least,
            tokens=plan.likely(plan.steps[0]) + min(plan.steps[0].limit, expected) * request.choices,
            deployments=(step.deployment.name for step in plan.steps),
            tiered=self.routing.tiered(ticket.route),
        ) as reservation:
            within = plan.within(reservation.granted, expected)
            trail.personal = bool(terms.personal) and (decision.frugal or within is not plan)
            self._paying.ask(flight, caller.policy, reservation)
            try:
                completion = await self.dispatch.send(within, request, reservation, trail, flight.publish)
            except Rejected as error:
                if key is not None and within is plan and lasting(error, trail, plan):
                    self.cache.refusals.keep(to_the_letter(key.namespace, request), error)
                raise
            reservation.saved = trail.routed = plan.saved(completion.usage, trail.cost)
            reservation.shared = self._paying.settle(flight, caller.policy, completion)
        trail.worth = trail.cost
        self.routing.answered(decision, ticket.route, trail.deployment, completion.usage)
        if self.outcomes is not None:
            self.outcomes.answered(caller, ticket.id, request, completion.text)
        if not completion.usage.estimated:
            # How long answers are: what near a cap will be held for the next.
            each, limit = completion.usage.completion_tokens // request.choices, within.limit_of(trail.deployment)
            self.budget.outputs.observe(caller.tenant, ticket.route, each, limit=limit)
        return completion

    async def embed(self, caller: Principal, body: Json, wishes: Wishes | None = None) -> Embedded:
        """Vectors for what `body` holds. Raises every error a chat call may raise."""
        ticket = self._ticket(caller, wishes or Wishes(), body["model"], stream=False)
        return await self._embedding.embed(ticket, body)

    def _ticket(self, caller: Principal, wishes: Wishes, model: str, *, stream: bool) -> Ticket:
        return Ticket(
            id=self._new_id(),
            at=self._now(),
            started=self._clock(),
            caller=caller,
            wishes=wishes,
            route=model,
            stream=stream,
        )

    def _reply(
        self,
        ticket: Ticket,
        request: ChatRequest,
        flight: Flight,
        permit: Permit,
        *,
        leads: bool = False,
        recourse: Recourse | None = None,
    ) -> Reply:
        """What this caller reads. Who neither leads nor follows found its flight elsewhere and has yet to join it."""
        if not leads and recourse is None:
            flight.join(stream=ticket.stream)
        return Reply(
            ticket,
            flight,
            leads=leads,
            permit=permit,
            closed=lambda record, trail, billed: self._closed(ticket, request, record, trail, billed),
            clock=self._clock,
            recourse=recourse,
            fee=self._paying.fee(ticket, repeats=not leads and recourse is None),
        )

    def tokens(self, caller: Principal) -> RateState | None:
        """How the caller's tokens of this minute stand, with those of calls in flight; None where they are not limited."""
        limit = caller.policy.tpm
        if limit is None:
            return None
        taken, left = self.budget.tokens(caller.tenant)
        return RateState(limit, max(0, limit - taken), left)

    def _closed(
        self, ticket: Ticket, request: ChatRequest, record: CallRecord, trail: Trail, billed: int | None
    ) -> None:
        """A caller has left: one record to telemetry, and to the journal what an answer from stock saved and is billed at. One that
        it was given stale is bought anew."""
        self.telemetry.record(record)
        if record.source != "none":
            self.checking.given(ticket, trail)
        if self.outcomes is not None and trail.decision is not None and record.attempts:
            self.outcomes.bought(record, request, trail.decision, ticket.caller.policy)
        if record.cache_reason == STALE and ticket.wishes.cache != "only-if-cached":
            key = fingerprint(Namespace(record.tenant, ticket.wishes.namespace), request)
            self.refreshes.start(key, lambda: self._refresh(ticket, request))
        if billed is not None:
            self._paying.note(record, billed)

    async def feedback(self, caller: Principal, id: str, *, correct: bool, reason: str | None = None) -> Heard:
        """What somebody says of the answer to the call `id` of the caller's tenant: a wrong one is taken out of stock at once, and the
        verdict learns from it. Raises NotFound when nothing is known of the call, and what the store raises."""
        heard = await self.checking.feedback(caller.tenant, id, correct=correct)
        routed = self.outcomes is not None and self.outcomes.heard(caller.tenant, id, float(correct))
        if not (heard.known or routed):
            raise NotFound(f"Nothing is known of an answer {id[:80]!r}: it is none of yours, or too long ago.")
        if not correct:
            log.info("answer %s was wrong, says tenant %s: %s", id, caller.tenant, " ".join((reason or "-").split()))
        return heard

    async def _refresh(self, ticket: Ticket, request: ChatRequest) -> None:
        """Make the call that a stale answer has spared its caller: the same limits, the same budgets, a record of its own."""
        async with await self.chat(ticket.caller, request, anew(ticket.wishes)) as reply:
            await reply.completion()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Take no new calls, let those in flight finish for a while, settle, and let go of everything."""
        await self.flights.drain(self._grace)
        await self.relaying.close()
        await self.refreshes.close()
        await self.checking.close()
        if self.outcomes is not None:
            await self.outcomes.close()
        for provider in self.dispatch.providers.values():
            await provider.close()
        await self.cache.close()
        await self.budget.ledger.close()
        self.telemetry.close()
