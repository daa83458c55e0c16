"""What of a tunnel's bytes is not paid waits here. One take pays for all that waits, or for as much as is admitted."""

import asyncio
from collections import deque
from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple, Protocol

from gateway.decision.looks import ROUNDS_MAX, Looks, Unread
from gateway.http import websocket
from gateway.ledger.ledger_link import LedgerLink
from gateway.ledger.permits import Permits
from gateway.ledger.settlements import Settlements
from gateway.metering.tunnel_price import TunnelPrice
from gateway.redis.connection import Lost
from gateway.tunnel.batches import CloseTunnel, LetPass, TakeFewer, TakeLater, after_refusal, first_batch
from gateway.tunnel.closing import Unpaid
from gateway.tunnel.refused import Why
from gateway.tunnel.sides import Side
from identity.claims import Claims
from identity.refusals import TokenRefused
from quota.calls.encoded import TAKE_ARGV, encode_charges
from quota.calls.take import decode_take
from quota.model import Admitted, Stale, Unknown


class ChargingWorker(Protocol):
    """What charges use of the worker."""

    @property
    def link(self) -> LedgerLink: ...
    @property
    def settlements(self) -> Settlements: ...
    @property
    def permits(self) -> Permits: ...
    @property
    def looks(self) -> Looks: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    def next_id(self) -> bytes: ...


class ChargedTunnel(Protocol):
    """The tunnel whose bytes wait."""

    def pass_on(self, side: Side, data: bytes) -> None:
        """What came from this side goes on. The tunnel may end within."""

    def release_sides(self) -> None:
        """Nothing waits any more."""

    def close(self, code: int, reason: str) -> None: ...


class TunnelRules(Protocol):
    """What else decides on the tunnel."""

    def in_shadow(self, *, of_principal: bool = False) -> bool: ...
    def allow(self, claims: Claims) -> TokenRefused | None:
        """Why a principal that may be used may not be used for this tunnel."""

    def keep(self, why: Why, charges: Mapping[str, int]) -> None:
        """For those who ask: what waits is refused, or would be but for shadow mode."""


class TunnelPermit:
    """The concurrency permit of a tunnel. It has one, however often it pays: each take that gets one has it instead."""

    def __init__(self, permits: Permits, org: str, take_id: bytes) -> None:
        """`take_id`: the take that got the permit; empty if none did."""
        self._permits = permits
        self._org = org
        self._take_id = take_id

    def hold(self, take_id: bytes) -> None:
        self._take_id = take_id
        self._permits.hold(self._org, take_id)

    def release(self) -> None:
        if self._take_id:
            self._permits.release(self._org, self._take_id)
            self._take_id = b""


class Paying(Enum):
    NOTHING = auto()
    """Nothing waits."""
    DUE = auto()
    """A take follows in this turn of the loop: all that one read brought is taken together."""
    TAKING = auto()
    """A take for the first items is on its way, or a look before it, or it is tried again later."""
    ENDED = auto()
    """Nothing goes on any more."""


class _Waiting(NamedTuple):
    side: Side
    data: bytes
    units: int


class TunnelCharges:
    def __init__(
        self,
        worker: ChargingWorker,
        tunnel: ChargedTunnel,
        claims: Claims,
        price: TunnelPrice,
        permit: TunnelPermit,
        rules: TunnelRules,
    ) -> None:
        self.per_message = price.per_message
        self._worker = worker
        self._tunnel = tunnel
        self._claims = claims
        self._price = price
        self._permit = permit
        self._rules = rules
        self._state = Paying.NOTHING
        self._waiting: deque[_Waiting] = deque()
        self._taken = 0  # items of `_waiting` that a take is under way for
        self._items_max = 0  # of the next take
        self._stale = 0  # takes in a row that said another version than the published one

    def offer(self, side: Side, data: bytes, units: int) -> None:
        """Passes on what costs nothing and waits for nothing. All else waits to be paid."""
        if not units and not self._waiting:
            self._tunnel.pass_on(side, data)
            return
        self._waiting.append(_Waiting(side, data, units))
        if not side.held:
            side.held = True
            side.read_or_not()
        if self._state is Paying.NOTHING:
            self._state = Paying.DUE
            self._worker.loop.call_soon(self._take)

    def end(self) -> Unpaid:
        """What waits goes on no more: what that is."""
        self._state = Paying.ENDED
        if not self._waiting:
            return Unpaid.NOTHING
        self._waiting.clear()
        return Unpaid.MESSAGES if self.per_message else Unpaid.BYTES

    def _take(self) -> None:
        """Asks for the first of what waits, as much as may be had at once."""
        if self._state is Paying.ENDED:
            return
        if self._state is Paying.DUE:
            self._items_max = len(self._waiting)
        self._state = Paying.TAKING
        if not self._claims.take_words:  # another request of the principal was refused
            self._worker.looks.look(self._claims, self)
            return
        self._taken, units = first_batch((item.units for item in self._waiting), self._items_max, self._price.units_max)
        self._permit.release()  # it passes on to this take
        charges = {meter: cost * units for meter, cost in self._price.charges.items()}
        _Take(self, charges).send(self._worker, self._claims)

    def _let_pass(self) -> None:
        """What the take was for goes on, and the next one follows."""
        left = len(self._waiting) - self._taken
        while self._waiting and (len(self._waiting) > left or not self._waiting[0].units):
            item = self._waiting.popleft()
            self._tunnel.pass_on(item.side, item.data)
        if self._state is Paying.ENDED:
            return
        self._items_max = max(self._taken, 1)
        if self._waiting:
            self._take()
            return
        self._state = Paying.NOTHING
        self._tunnel.release_sides()

    def on_decided(self, take: "_Take", reply: bytes) -> None:
        decision = decode_take(reply, list(take.charges))
        if isinstance(decision, Admitted):
            self._on_admitted(take, decision)
            return
        if self._state is Paying.ENDED:
            return
        if isinstance(decision, Stale):
            self._look_again(decision)
            return
        match after_refusal(decision, self._taken, in_shadow=self._rules.in_shadow()):
            case LetPass():
                self._rules.keep(decision, take.charges)
                self._let_pass()
            case TakeFewer(items_max=items_max):
                self._items_max = items_max
                self._take()
            case TakeLater(seconds=seconds):
                self._worker.loop.call_later(seconds, self._take)
            case CloseTunnel(code=code, reason=reason):
                self._rules.keep(decision, take.charges)
                self._tunnel.close(code, reason)

    def _on_admitted(self, take: "_Take", admitted: Admitted) -> None:
        if self._state is Paying.ENDED:
            org, reason = self._claims.org, "the tunnel ended before it was used"
            self._worker.settlements.give_back(org, admitted.receipt, reason)
            if admitted.permit:
                self._worker.permits.release(org, take.id)
            return
        self._stale = 0
        if admitted.permit:
            self._permit.hold(take.id)
        self._let_pass()

    def on_lost(self, take: "_Take", lost: Lost) -> None:
        if lost.applied is not False:
            self._worker.settlements.void(self._claims.org, take.id)
            self._worker.permits.release(self._claims.org, take.id)
        if self._state is not Paying.ENDED:
            self._end_unless_in_shadow(None, websocket.TRY_AGAIN_LATER, "the quota could not be checked")

    def _end_unless_in_shadow(self, why: Why, code: int, reason: str) -> None:
        self._rules.keep(why, self._price.charges)
        if self._rules.in_shadow(of_principal=isinstance(why, TokenRefused)):
            self._taken = max(self._taken, 1)
            self._let_pass()
        else:
            self._tunnel.close(code, reason)

    # How the principal stands

    def _look_again(self, stale: Stale) -> None:
        """Another version of the organization is published than the principal was looked at with."""
        self._stale += 1
        self._worker.looks.stale += 1
        claims = self._claims
        if self._stale > ROUNDS_MAX:
            self.on_unread(Unread.AWAY)
        elif claims.version == stale.version and claims.take_words:
            self.on_good(claims)
        else:
            self._worker.looks.look(claims, self)

    def on_good(self, claims: Claims) -> None:
        if self._state is Paying.ENDED:
            return
        if (refused := self._rules.allow(claims)) is None:
            self._take()
        else:
            self._end_unless_in_shadow(refused, websocket.POLICY_VIOLATION, "the API key no longer allows this")

    def on_refused(self, claims: Claims | None, refused: TokenRefused) -> None:
        if self._state is not Paying.ENDED:
            self._end_unless_in_shadow(refused, websocket.POLICY_VIOLATION, str(refused))

    def on_unread(self, why: Unread) -> None:
        if self._state is not Paying.ENDED:
            unknown = Unknown(lapsed=False) if why is Unread.PENDING else None
            self._end_unless_in_shadow(unknown, websocket.TRY_AGAIN_LATER, "the quota could not be checked")


class _Take:
    """One charge. It waits for the ledger's reply."""

    __slots__ = ("_waiter", "charges", "id")

    def __init__(self, waiter: TunnelCharges, charges: dict[str, int]) -> None:
        self.charges = charges
        self.id = b""
        self._waiter = waiter

    def send(self, worker: ChargingWorker, claims: Claims) -> None:
        self.id = worker.next_id()
        charges = encode_charges(self.charges)
        argv = TAKE_ARGV % (self.id, claims.take_words, charges.bulk)
        worker.link.take(claims.keys_words, argv, charges.argv_count, self)

    def on_take(self, reply: bytes) -> None:
        self._waiter.on_decided(self, reply)

    def on_take_lost(self, lost: Lost) -> None:
        self._waiter.on_lost(self, lost)
