"""What one request is charged: asked of the ledger, and corrected once when the request's outcome is known."""

from collections.abc import Mapping
from enum import Enum
from typing import Final, Protocol

from gateway.decision.corrections import GIVEN_BACK, Correction, correction_of, correction_of_journaled, differing
from gateway.decision.refusals import RefusalAnswer, RefusalText
from gateway.decision.replies import ADMITTED, ADMITTED_WITH_MORE, admission, admission_with_more
from gateway.http.head import RequestHead
from gateway.ledger.permits import Permits
from gateway.ledger.settlements import Settlements
from gateway.metering.costs import RequestPrice, price_of
from gateway.observe import record
from gateway.redis.connection import Lost
from gateway.routing.destinations import Destination, MeteredRoute
from gateway.settings.metering import Outcome
from identity.claims import Claims
from quota.calls.take import decode_take
from quota.model import Decision, Exhausted, Stale, Unknown
from quota.wire import More

ABANDONED: Final = "the client left before its request was forwarded"


class ChargeState(Enum):
    ASKED = "asked"
    """The ledger has not answered yet, or has refused."""
    ASKED_AGAIN = "asked again"
    """The same, after the organization was loaded."""
    ASKED_HOME = "asked home"
    """The same, after the region's home was asked for units."""
    CHARGED = "charged"
    JOURNALED = "journaled"
    """The ledger is away: it will be charged later."""
    CORRECTED = "corrected"
    """What had to be done was done, or nothing had to be."""


ASKED: Final = ChargeState.ASKED
ASKED_AGAIN: Final = ChargeState.ASKED_AGAIN
ASKED_HOME: Final = ChargeState.ASKED_HOME
CHARGED: Final = ChargeState.CHARGED


class Peer(Protocol):
    @property
    def address(self) -> bytes: ...


class Asker(Protocol):
    """Who wants to know whether a request may go on. It is answered once: by `proceed`, or by one of the refusals."""

    claims: Claims | None
    verdict: bytes
    permit: bool

    @property
    def id(self) -> bytes: ...
    @property
    def head(self) -> RequestHead: ...
    @property
    def client(self) -> Peer:
        """The connection that it came by."""

    @property
    def over(self) -> bool:
        """Whether nobody waits for the answer any more."""

    def proceed(self, destination: Destination, charge: "Charge | None") -> None: ...
    def refuse(self, refusal: RefusalAnswer) -> None: ...
    def refuse_again(self, text: RefusalText) -> None: ...


class Outage(Protocol):
    """Lets requests go on without a take while Redis is away."""

    def admit(self, charge: "Charge") -> bool: ...
    def void(self, org: str, request_id: bytes) -> None: ...
    def forget(self, org: str) -> None: ...


class Clock(Protocol):
    @property
    def now(self) -> float:
        """Loop time."""


class Deciding(Protocol):
    """Who asked the ledger, and goes on with its answer."""

    @property
    def clock(self) -> Clock: ...
    @property
    def settlements(self) -> Settlements: ...
    @property
    def permits(self) -> Permits: ...
    @property
    def outage(self) -> Outage | None: ...
    def hydrate(self, charge: "Charge", refused: Exhausted | None = None) -> None: ...
    def look_again(self, charge: "Charge", stale: Stale) -> None: ...
    def refuse_charge(self, charge: "Charge", decision: Decision) -> None: ...
    def refuse_unchecked(self, asker: Asker, destination: Destination) -> None: ...


class Charge:
    """Made when it is known who asks and what it costs."""

    __slots__ = (
        "_deciding",
        "asker",
        "claims",
        "destination",
        "given_back",
        "idempotency_name",
        "price",
        "rate_fields",
        "receipt",
        "rounds",
        "state",
    )

    def __init__(
        self,
        deciding: Deciding,
        asker: Asker,
        destination: Destination,
        claims: Claims,
        price: RequestPrice | MeteredRoute,
        state: ChargeState,
        rounds: int = 0,
    ) -> None:
        """`rounds`: takes of the request that were stale."""
        self._deciding = deciding
        self.asker = asker
        self.destination = destination
        self.claims = claims
        self.price = price
        self.idempotency_name: str | None = None
        self.state = state
        self.rounds = rounds
        self.rate_fields = self.receipt = b""
        self.given_back = False

    @property
    def over(self) -> bool:
        """Whether the client has left."""
        return self.asker.over

    @property
    def request_id(self) -> bytes:
        return self.asker.id

    # What the ledger says

    def on_take(self, reply: bytes) -> None:
        asker, route, verdict = self.asker, self.destination.route, reply[0]
        if verdict == ADMITTED:
            self.rate_fields, self.receipt = admission(reply, route)
            self.state = CHARGED
            asker.verdict = record.ADMITTED
            if route.admitted_at is not None:
                route.admitted_at[self.claims.org] = self._deciding.clock.now, self.claims.version
            if asker.over:
                self.give_back(ABANDONED)
            else:
                asker.proceed(self.destination, self)
        elif verdict == ADMITTED_WITH_MORE:
            self._on_admitted_with_more(reply, route)
        elif not asker.over:
            decision = decode_take(reply, list(self.price.charges))
            if isinstance(decision, Stale):
                self._deciding.look_again(self, decision)
            elif isinstance(decision, Unknown) and self.state is ASKED:
                self._deciding.hydrate(self)
            elif isinstance(decision, Exhausted) and decision.more_elsewhere and self.state is not ASKED_HOME:
                self._deciding.hydrate(self, decision)
            else:
                self._deciding.refuse_charge(self, decision)

    def _on_admitted_with_more(self, reply: bytes, route: MeteredRoute) -> None:
        """Admitted as the repetition of a request that was charged, or with a permit, or both."""
        asker, org, more = self.asker, self.claims.org, reply[1]
        self.rate_fields, self.receipt = admission_with_more(reply, route)
        self.state = CHARGED
        asker.verdict = record.REPLAYED if more & More.REPLAYED else record.ADMITTED
        if route.admitted_at is not None and asker.verdict is record.ADMITTED:
            route.admitted_at[org] = self._deciding.clock.now, self.claims.version
        if more & More.PERMIT:
            if asker.over:
                self._deciding.permits.release(org, asker.id)
            else:
                asker.permit = True
                self._deciding.permits.hold(org, asker.id)
        if asker.over:
            self.give_back(ABANDONED)
        else:
            asker.proceed(self.destination, self)

    def on_take_lost(self, lost: Lost) -> None:
        asker, deciding = self.asker, self._deciding
        if lost.applied is not False:
            # It may have been charged all the same. Never forwarded, it must not stay so.
            deciding.settlements.void(self.claims.org, asker.id, self.idempotency_name)
            deciding.permits.release(self.claims.org, asker.id)
        elif (outage := deciding.outage) is not None and not asker.over and outage.admit(self):
            return
        deciding.refuse_unchecked(asker, self.destination)

    def on_journaled(self) -> None:
        """Redis is away, and the route allows it: the charge follows when Redis is back."""
        self.state = ChargeState.JOURNALED
        self.asker.verdict = record.DEGRADED
        self.asker.proceed(self.destination, self)

    def on_not_journaled(self) -> None:
        self._deciding.refuse_unchecked(self.asker, self.destination)

    # What becomes of it

    def settle(self, outcome: Outcome | None, reason: str, reported: Mapping[str, int]) -> bool:
        """Corrects the charge, once, of a request that was sent. `reported`: the units that the upstream has reported
        so far. Returns whether something may stay charged."""
        rules = self.destination.route.refund
        if self.state is CHARGED:
            used = differing(reported, self.price.charges)
            if used:
                self.price = price_of({**self.price.charges, **used})  # the access log has what was used
            return self._correct(correction_of(outcome, rules, used), reason)
        if self.state is ChargeState.JOURNALED:
            return self._correct(correction_of_journaled(outcome, rules), reason)
        return False

    def give_back(self, reason: str) -> None:
        """The request was not sent."""
        if self.state is CHARGED or self.state is ChargeState.JOURNALED:
            self._correct(GIVEN_BACK, reason)

    def _correct(self, correction: Correction, reason: str) -> bool:
        state, self.state = self.state, ChargeState.CORRECTED
        deciding, org, request_id = self._deciding, self.claims.org, self.asker.id
        if not correction.given_back:
            if correction.units:
                deciding.settlements.correct(org, self.receipt, correction.units)
            return True
        if state is CHARGED:
            name, cap, units = self.idempotency_name, correction.refunds_max, correction.units
            deciding.settlements.give_back(org, self.receipt, reason, name, request_id, cap, units)
        elif deciding.outage is not None:
            deciding.outage.void(org, request_id)
        self.given_back = True
        self.rate_fields = b""  # they say a balance that is being corrected
        return correction.may_stay
