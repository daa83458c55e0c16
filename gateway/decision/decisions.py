"""Whether a request may go on. Read `decide` from top to bottom: who asks, what it costs, what the ledger says.

No step waits: the keys of the issuer, an organization that is loaded and the ledger itself call back.
"""

from collections.abc import Mapping
from functools import partial
from typing import Protocol

from gateway.decision import idempotency, refusals
from gateway.decision.authentication import Authentication
from gateway.decision.charge import ASKED, ASKED_AGAIN, Asker, Charge, ChargeState, Clock, Outage
from gateway.decision.exhausted import ExhaustedMemory
from gateway.decision.refusals import RefusalAnswer
from gateway.ledger.hydration import HydrationClient
from gateway.ledger.link import Link
from gateway.ledger.permits import Permits
from gateway.ledger.settlements import Settlements
from gateway.metering.costs import CostRefused, RequestPrice
from gateway.observe import record
from gateway.routing.destinations import Destination, MeteredRoute
from identity.claims import Claims
from identity.refusals import KeyRefreshDue, TokenRefused
from quota import problems
from quota.calls.encoded import IDEMPOTENT_KEYS, TAKE_ARGV, keyed
from quota.model import Decision, Exhausted, RateLimited, Unknown


class Organization(Protocol):
    """An organization in the forms that the ledger reads."""

    @property
    def keys_bulk(self) -> bytes: ...
    @property
    def org_bulk(self) -> bytes: ...


class Organizations(Protocol):
    @property
    def identities(self) -> Mapping[str, Organization]:
        """Those that were met lately."""

    def identity(self, org: str) -> Organization: ...
    def idempotency_bulk(self, org: str, name: str) -> bytes:
        """The key of a take that its idempotency key is kept in, as a RESP word."""


class Decisions:
    """The same for all end points, in one worker."""

    __slots__ = (
        "_authentication",
        "_exhausted",
        "_hydrator",
        "_identities",
        "_link",
        "_organizations",
        "_shadow_organizations",
        "_upgrade_url",
        "_verifier",
        "clock",
        "outage",
        "permits",
        "settlements",
    )

    def __init__(
        self,
        authentication: Authentication,
        organizations: Organizations,
        link: Link,
        exhausted: ExhaustedMemory,
        hydrator: HydrationClient,
        settlements: Settlements,
        permits: Permits,
        outage: Outage | None,
        clock: Clock,
        shadow_organizations: frozenset[str],
        upgrade_url: str | None,
    ) -> None:
        self._authentication = authentication
        self._verifier = authentication.verifier
        self._organizations = organizations
        self._identities = organizations.identities
        self._link = link
        self._exhausted = exhausted
        self._hydrator = hydrator
        self.settlements = settlements
        self.permits = permits
        self.outage = outage
        self.clock = clock
        self._shadow_organizations = shadow_organizations
        self._upgrade_url = upgrade_url

    def decide(self, asker: Asker, destination: Destination) -> None:
        head, verifier = asker.head, self._verifier
        claims = head.claims
        if (
            claims is None  # a header section that repeats is verified once
            or head.verified_in != verifier.epoch
            or claims.expires_at <= verifier.clock()
            or destination.route.tokens is not None
        ):
            try:
                claims = self._authentication.claims(head, destination)
            except KeyRefreshDue as due:
                again = partial(self._decide_with_new_keys, asker, destination)
                self._authentication.refresh_keys(due.issuer, again)
                return
            except TokenRefused as e:
                self._refuse_token(asker, destination, e)
                return
        asker.claims = claims
        self._take(asker, destination, claims, ASKED)

    def _decide_with_new_keys(self, asker: Asker, destination: Destination) -> None:
        if asker.over:
            return
        try:
            claims = self._authentication.claims(asker.head, destination)
        except TokenRefused as e:
            self._refuse_token(asker, destination, e)
            return
        asker.claims = claims
        self._take(asker, destination, claims, ASKED)

    def _refuse_token(self, asker: Asker, destination: Destination, refused: TokenRefused) -> None:
        asker.verdict = b"token_" + refused.reason.encode()
        self._deny(asker, destination, self._authentication.refusal(refused))

    def _take(self, asker: Asker, destination: Destination, claims: Claims, state: ChargeState) -> None:
        route, head = destination.route, asker.head
        if route.upstream.failing and not route.upstream.admits():
            asker.refuse(refusals.of_open_breaker(route.upstream.retry_after_seconds))
            return
        price: RequestPrice | MeteredRoute = route
        if route.pricing is not None:
            try:
                price = route.pricing.price(head, destination.sent)
            except CostRefused as e:
                asker.refuse(RefusalAnswer(problems.BAD_REQUEST, str(e)))
                return
        org = claims.org
        if head.idempotency_key is not None and route.idempotency:
            self._take_idempotently(asker, destination, claims, price, head.idempotency_key, state)
            return
        memory = self._exhausted
        if memory.by_org and (text := memory.recall(org, price.charge_bulk, price.charges)) is not None:
            asker.verdict = record.FROM_MEMORY
            if self.in_shadow(route, claims):
                self._deny(asker, destination, text.refusal)
            else:
                asker.refuse_again(text)
            return
        identity = self._identities.get(org) or self._organizations.identity(org)
        self._link.take(
            identity.keys_bulk,
            TAKE_ARGV % (asker.id, identity.org_bulk, price.charge_bulk),
            price.charge_words,
            Charge(self, asker, destination, claims, price, state),
        )

    def _take_idempotently(
        self,
        asker: Asker,
        destination: Destination,
        claims: Claims,
        price: RequestPrice | MeteredRoute,
        field: bytes,
        state: ChargeState,
    ) -> None:
        """Takes for a request that may be the repetition of one that was charged, so memory does not refuse it."""
        if (key := idempotency.key_of(field)) is None:
            asker.refuse(RefusalAnswer(problems.BAD_REQUEST, idempotency.MALFORMED))
            return
        name = idempotency.name_of(key, destination.route, destination.request_line, price.charge_bulk)
        identity = self._organizations.identity(claims.org)
        charge = Charge(self, asker, destination, claims, price, state)
        charge.idempotency_name = name
        self._link.take(
            identity.keys_bulk + self._organizations.idempotency_bulk(claims.org, name),
            TAKE_ARGV % (asker.id, identity.org_bulk, keyed(price.charge_bulk)),
            price.charge_words,
            charge,
            key_count=IDEMPOTENT_KEYS,
        )

    # What the ledger says: the charge calls

    def hydrate(self, charge: Charge) -> None:
        """Redis does not know the organization: it is loaded, and then asked again."""

        def on_answer(published: bool) -> None:
            asker, destination = charge.asker, charge.destination
            if asker.over:
                return
            if published:
                self._take(asker, destination, charge.claims, ASKED_AGAIN)
            else:
                unknown = Unknown(lapsed=False)
                self._deny(asker, destination, refusals.of_decision(unknown, destination.route.charges, None))

        self._hydrator.ask(charge.claims.org, on_answer)

    def refuse_charge(self, charge: Charge, decision: Decision) -> None:
        org, price = charge.claims.org, charge.price
        if self.outage is not None and not isinstance(decision, RateLimited):
            self.outage.forget(org)
        if isinstance(decision, Exhausted):
            self._exhausted.remember(org, price.charge_bulk, decision)
        refusal = refusals.of_decision(decision, price.charges, self._upgrade_url)
        self._deny(charge.asker, charge.destination, refusal)

    def refuse_unchecked(self, asker: Asker, destination: Destination) -> None:
        if not asker.over:
            self._deny(asker, destination, refusals.unchecked())

    # Shadow mode

    def in_shadow(self, route: MeteredRoute, claims: Claims | None) -> bool:
        return route.shadow or (claims is not None and claims.org in self._shadow_organizations)

    def _deny(self, asker: Asker, destination: Destination, refusal: RefusalAnswer) -> None:
        """Caller or quota speak against the request. In shadow mode that is recorded, and the request goes on."""
        if self.in_shadow(destination.route, asker.claims):
            asker.verdict = record.SHADOW + (asker.verdict or record.verdict_of(refusal.problem))
            asker.proceed(destination, None)
        else:
            asker.refuse(refusal)
