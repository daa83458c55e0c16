"""Whether a request may go on. Read `decide` from top to bottom: who asks, how that principal stands, what the request
costs, what the ledger says.

No step waits: the keys of the issuer, a look, an organization that is loaded and the ledger itself call back.
"""

from collections.abc import Mapping
from functools import partial
from typing import Protocol

from gateway.decision import idempotency, refusals
from gateway.decision.authentication import Authentication
from gateway.decision.charge import ASKED, ASKED_AGAIN, ASKED_HOME, Asker, Charge, ChargeState, Clock, Outage
from gateway.decision.exhausted import ExhaustedMemory
from gateway.decision.looks import ROUNDS_MAX, Looks, Unread
from gateway.decision.refusals import RefusalAnswer
from gateway.ledger.hydration import HydrationClient
from gateway.ledger.ledger_link import LedgerLink
from gateway.ledger.permits import Permits
from gateway.ledger.settlements import Settlements
from gateway.metering.costs import CostRefused, RequestPrice
from gateway.observe import record
from gateway.observe.finished import Believed
from gateway.observe.refused import RefusedLog
from gateway.routing.destinations import Destination, MeteredRoute
from identity.claims import Claims
from identity.refusals import ApiKeyPresented, KeyRefreshDue, Reason, TokenRefused
from identity.restrictions import restrictions_of
from quota import problems
from quota.calls.encoded import IDEMPOTENT_KEYS, TAKE_ARGV, keyed
from quota.model import Decision, Exhausted, Level, RateLimited, Stale, Unknown


class IdempotencyKeys(Protocol):
    def __call__(self, org: str, name: str, /) -> bytes:
        """The key of a take that its idempotency key is kept in, as a RESP word."""


class Decisions:
    """The same for all end points, in one worker."""

    __slots__ = (
        "_authentication",
        "_exhausted",
        "_hydrator",
        "_idempotency_bulk",
        "_link",
        "_looks",
        "_refused",
        "_shadow_organizations",
        "_trust",
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
        looks: Looks,
        idempotency_bulk: IdempotencyKeys,
        link: LedgerLink,
        exhausted: ExhaustedMemory,
        hydrator: HydrationClient,
        settlements: Settlements,
        permits: Permits,
        outage: Outage | None,
        clock: Clock,
        trust: Believed,
        shadow_organizations: frozenset[str],
        upgrade_url: str | None,
        refused: RefusedLog,
    ) -> None:
        self._authentication = authentication
        self._verifier = authentication.verifier
        self._looks = looks
        self._idempotency_bulk = idempotency_bulk
        self._link = link
        self._exhausted = exhausted
        self._hydrator = hydrator
        self.settlements = settlements
        self.permits = permits
        self.outage = outage
        self.clock = clock
        self._trust = trust
        self._shadow_organizations = shadow_organizations
        self._upgrade_url = upgrade_url
        self._refused = refused

    # Who asks

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
            except ApiKeyPresented as key:
                self._looks.find(key, _Asking(self, asker, destination))
                return
            except KeyRefreshDue as due:
                again = partial(self._decide_with_new_keys, asker, destination)
                self._authentication.refresh_keys(due.issuer, again)
                return
            except TokenRefused as e:
                self._refuse_token(asker, destination, e)
                return
        asker.claims = claims
        if claims.words and destination.route.required is None:
            self._take(asker, destination, claims)
        else:
            self._examine(asker, destination, claims)

    def _decide_with_new_keys(self, asker: Asker, destination: Destination) -> None:
        if asker.over:
            return
        try:
            claims = asker.claims = self._authentication.claims(asker.head, destination)
        except TokenRefused as e:
            self._refuse_token(asker, destination, e)
            return
        self._examine(asker, destination, claims)

    def _refuse_token(self, asker: Asker, destination: Destination, refused: TokenRefused) -> None:
        asker.verdict = b"token_" + refused.reason.encode()
        self._deny(asker, destination, self._authentication.refusal(refused))

    # How that principal stands

    def _examine(self, asker: Asker, destination: Destination, claims: Claims) -> None:
        asking = _Asking(self, asker, destination)
        # What would be refused makes no take, which would tell whether what is remembered is still so.
        if claims.take_words and self.refusal(asker, destination, claims) is None:
            self._take(asker, destination, claims)
        else:
            self._looks.look(claims, asking)

    def on_good(self, asking: "_Asking", claims: Claims) -> None:
        """The principal may use its organization. Whether it may send this request is to be seen."""
        asker, destination = asking.asker, asking.destination
        if (refused := self.refusal(asker, destination, claims)) is not None:
            self.on_refused(asking, claims, refused)
            return
        asker.claims = claims
        self._take(asker, destination, claims, asking.state, asking.rounds)

    def refusal(self, asker: Asker, destination: Destination, claims: Claims) -> TokenRefused | None:
        """Why a principal that may use its organization may not send this request, or not from here."""
        key, route = claims.record, destination.route
        scopes = () if key is None else key.scopes
        if route.required is not None and (refused := route.required.refusal(claims, scopes)) is not None:
            return refused
        if key is None or not (scopes or key.networks):
            return None
        restrictions = restrictions_of(scopes, key.networks)
        if key.networks and not restrictions.hold(self._trust.client(asker.client.address, asker.head.forwarded)):
            return TokenRefused(Reason.KEY_ADDRESS)
        method = destination.method.decode()
        if restrictions.allow(route.name, route.charges, method):
            return None
        return TokenRefused(Reason.KEY_SCOPE, restrictions.lacking(route.name, route.charges, method))

    def on_refused(self, asking: "_Asking", claims: Claims | None, refused: TokenRefused) -> None:
        asker, destination = asking.asker, asking.destination
        asker.claims = claims  # for the log
        asker.verdict = b"token_" + refused.reason.encode()
        refusal = self._authentication.refusal(refused)
        shadow = self.in_shadow(destination.route, claims, of_principal=True)
        self._keep(asker, destination, refusal, shadow=shadow)
        if shadow:
            asker.claims = None  # whoever is not believed is not named to the upstream
            self._record_only(asker, destination)
        else:
            asker.refuse(refusal)

    def on_unread(self, asking: "_Asking", why: Unread) -> None:
        asker, destination = asking.asker, asking.destination
        if why is Unread.PENDING:
            self._refuse_pending(asker, destination)
        elif why is Unread.INDEX:
            self._deny(asker, destination, refusals.without_index())
        else:
            self.refuse_unchecked(asker, destination)

    # What the request costs

    def _take(
        self, asker: Asker, destination: Destination, claims: Claims, state: ChargeState = ASKED, rounds: int = 0
    ) -> None:
        route, head = destination.route, asker.head
        if route.upstream.failing and not route.upstream.admits():
            self._turn_away(asker, destination, refusals.of_open_breaker(route.upstream.retry_after_seconds))
            return
        price: RequestPrice | MeteredRoute = route
        if route.pricing is not None:
            try:
                price = route.pricing.price(head, destination.sent)
            except CostRefused as e:
                self._turn_away(asker, destination, RefusalAnswer(problems.BAD_REQUEST, str(e)))
                return
        if head.idempotency_key is not None and route.idempotency:
            charge = Charge(self, asker, destination, claims, price, state, rounds)
            self._take_idempotently(charge, price, head.idempotency_key)
            return
        memory = self._exhausted
        if (
            memory.by_org
            and (text := memory.recall(claims.org, price.charge_bulk, price.charges)) is not None
            and not claims.shadow  # the take tells when that has ended
        ):
            asker.verdict = record.FROM_MEMORY
            decision, shadow = memory.decision(claims.org, price.charge_bulk), self.in_shadow(route, claims)
            self._keep(asker, destination, text.refusal, decision, price.charges, shadow=shadow, remembered=True)
            if shadow:
                self._record_only(asker, destination)
            else:
                asker.refuse_again(text)
            return
        self._link.take(
            claims.keys_words,
            TAKE_ARGV % (asker.id, claims.take_words, price.charge_bulk),
            price.charge_words,
            Charge(self, asker, destination, claims, price, state, rounds),
        )

    def _take_idempotently(self, charge: Charge, price: RequestPrice | MeteredRoute, field: bytes) -> None:
        """Takes for a request that may be the repetition of one that was charged, so memory does not refuse it."""
        asker, destination, claims = charge.asker, charge.destination, charge.claims
        if (key := idempotency.key_of(field)) is None:
            self._turn_away(asker, destination, RefusalAnswer(problems.BAD_REQUEST, idempotency.MALFORMED))
            return
        name = idempotency.name_of(key, destination.route, destination.request_line, price.charge_bulk)
        charge.idempotency_name = name
        self._link.take(
            claims.keys_words + self._idempotency_bulk(claims.org, name),
            TAKE_ARGV % (asker.id, claims.take_words, keyed(price.charge_bulk)),
            price.charge_words,
            charge,
            key_count=IDEMPOTENT_KEYS,
        )

    # What the ledger says: the charge calls

    def hydrate(self, charge: Charge, refused: Exhausted | None = None) -> None:
        """Redis does not know the organization: it is loaded, and then asked again. `refused`: it knows it, but this
        region is short of units, and its home is asked for some."""

        def on_answer(published: bool) -> None:
            asker, destination = charge.asker, charge.destination
            if asker.over:
                return
            if published:
                state = ASKED_AGAIN if refused is None else ASKED_HOME
                self._take(asker, destination, charge.claims, state, charge.rounds)
            elif refused is None:
                self._refuse_pending(asker, destination)
            else:
                self.refuse_charge(charge, refused)

        short = None if refused is None else (refused.balance.meter, charge.price.charges[refused.balance.meter])
        self._hydrator.ask(charge.claims.org, on_answer, short)

    def look_again(self, charge: Charge, stale: Stale) -> None:
        """Another version of the organization is published than the principal was looked at with."""
        self._looks.stale += 1
        claims, asker, destination = charge.claims, charge.asker, charge.destination
        if charge.rounds >= ROUNDS_MAX:
            self.refuse_unchecked(asker, destination)
            return
        asking = _Asking(self, asker, destination, charge.state, charge.rounds + 1)
        if claims.version == stale.version and claims.take_words:  # another request has looked
            asking.on_good(claims)
        else:
            self._looks.look(claims, asking)

    def refuse_charge(self, charge: Charge, decision: Decision) -> None:
        org, price = charge.claims.org, charge.price
        if self.outage is not None and not isinstance(decision, RateLimited):
            self.outage.forget(org)
        # Another principal, which was not looked at since shadow mode began, would be refused from memory.
        if isinstance(decision, Exhausted) and decision.level is Level.ORGANIZATION and not charge.claims.shadow:
            self._exhausted.remember(org, price.charge_bulk, decision)
        refusal = refusals.of_decision(decision, price.charges, self._upgrade_url)
        self._deny(charge.asker, charge.destination, refusal, decision, price.charges)

    def _refuse_pending(self, asker: Asker, destination: Destination) -> None:
        unknown = Unknown(lapsed=False)
        self._deny(asker, destination, refusals.of_decision(unknown, destination.route.charges, None), unknown)

    def refuse_unchecked(self, asker: Asker, destination: Destination) -> None:
        if not asker.over:
            self._deny(asker, destination, refusals.unchecked())

    # Shadow mode

    def in_shadow(self, route: MeteredRoute, claims: Claims | None, of_principal: bool = False) -> bool:
        """Whether a refusal is only recorded. `of_principal`: it is about who asks. An organization's published mode is
        about its plan alone, so who is revoked stays refused."""
        if route.shadow or claims is None:
            return route.shadow
        return (claims.shadow and not of_principal) or claims.org in self._shadow_organizations

    def _deny(
        self,
        asker: Asker,
        destination: Destination,
        refusal: RefusalAnswer,
        decision: Decision | None = None,
        charges: Mapping[str, int] | None = None,
    ) -> None:
        """Caller or quota speak against the request. In shadow mode that is recorded, and the request goes on."""
        shadow = self.in_shadow(destination.route, asker.claims)
        self._keep(asker, destination, refusal, decision, charges, shadow=shadow)
        if shadow:
            self._record_only(asker, destination)
        else:
            asker.refuse(refusal)

    def _turn_away(self, asker: Asker, destination: Destination, refusal: RefusalAnswer) -> None:
        """What speaks against the request is no matter of shadow mode."""
        self._keep(asker, destination, refusal)
        asker.refuse(refusal)

    def _keep(
        self,
        asker: Asker,
        destination: Destination,
        refusal: RefusalAnswer,
        decision: Decision | None = None,
        charges: Mapping[str, int] | None = None,
        *,
        shadow: bool = False,
        remembered: bool = False,
    ) -> None:
        """For those who ask why. `charges`: where they are not those of the route."""
        route, problem = destination.route, refusal.problem
        asker.verdict = asker.verdict or record.verdict_of(problem)
        self._refused.keep(
            asker,
            asker.claims,
            route.name,
            destination.method,
            problem.status,
            refusal.detail,
            route.charges if charges is None else charges,
            decision,
            shadow,
            remembered,
        )

    @staticmethod
    def _record_only(asker: Asker, destination: Destination) -> None:
        asker.verdict = record.SHADOW + asker.verdict
        asker.proceed(destination, None)


class _Asking:
    """A request that waits for a look at its principal."""

    __slots__ = ("_decisions", "asker", "destination", "rounds", "state")

    def __init__(
        self,
        decisions: Decisions,
        asker: Asker,
        destination: Destination,
        state: ChargeState = ASKED,
        rounds: int = 0,
    ) -> None:
        self._decisions = decisions
        self.asker = asker
        self.destination = destination
        self.state = state
        self.rounds = rounds
        """Takes so far that said another version than the published one."""

    def on_good(self, claims: Claims) -> None:
        if not self.asker.over:
            self._decisions.on_good(self, claims)

    def on_refused(self, claims: Claims | None, refused: TokenRefused) -> None:
        if not self.asker.over:
            self._decisions.on_refused(self, claims, refused)

    def on_unread(self, why: Unread) -> None:
        if not self.asker.over:
            self._decisions.on_unread(self, why)
