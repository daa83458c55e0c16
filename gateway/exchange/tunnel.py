"""An upgraded connection (RFC 9110 section 7.8): bytes both ways, and what they cost.

The request that asks for the upgrade goes the way of all requests. When the upstream answers 101, both connections are
handed over to the two sides of a tunnel, and back when it ends. Nothing is kept: a side is read only while the other
takes what it is sent, and while nothing waits to be charged.

A route may charge for messages or for mebibytes. What is not paid waits, and its side is not read. One take pays for
all that waits if that fits, and if not for half of it, and so on: exactly what is admitted goes on.
"""

import asyncio
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING

import structlog

from gateway.http import websocket
from gateway.http.deadlines import NEVER
from gateway.ledger.link import Lost
from gateway.metering.tunnel_price import TunnelPrice
from quota.calls.encoded import TAKE_ARGV, encode_charges
from quota.calls.take import decode_take
from quota.model import Admitted, ConcurrencyLimited, Decision, RateLimited, Unknown

if TYPE_CHECKING:
    from gateway.exchange.downstream import Downstream
    from gateway.exchange.exchange import Exchange
    from gateway.upstream.carried import SwitchedConnection

log = structlog.get_logger()

EARLY_BYTES_MAX = 65_536  # of what a client sends before the upstream has switched; then it is read no further
LINGER_SECONDS = 2.0
PERMIT_WAIT_SECONDS = 1.0  # until a charge that found no free permit is tried again
MEBIBYTE = 1 << 20


class Tunnel:
    """One upgrade: asked for, then open, then over."""

    def __init__(self, exchange: "Exchange", client: "Downstream", protocol: bytes) -> None:
        self.exchange = exchange
        self.protocol = protocol
        """The token that the client asked for, in lower case."""
        self.deadline = NEVER
        self.open = self.over = False
        self._worker = exchange.worker
        self._client = client
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._upstream: SwitchedConnection
        self._down: Side  # what the client is on
        self._up: Side
        self._frames = protocol == b"websocket"
        self._from_client = websocket.Frames(masked=True)
        self._from_upstream = websocket.Frames(masked=False)
        self._closing: tuple[int, str] | None = None  # when the upstream's frame has ended
        self._upstream_told = False
        self._ends = NEVER  # loop time, of a stopping worker
        self._price: TunnelPrice | None = None
        self._waiting: deque[tuple[Side, bytes, int]] = deque()  # from whom, what, its units
        self._passed_bytes = 0  # both ways
        self._taking = 0  # items of `_waiting` that a take is under way for
        self._at_once = 0  # most items of the next take
        self._permit = b""  # the take that holds the tunnel's permit

    # Asked for

    def on_early(self, data: bytes) -> None:
        """Bytes behind the request. They go upstream when it has switched."""
        if self.exchange.responded:
            return
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes > EARLY_BYTES_MAX:
            self._client.pause_reading()

    def answers(self, protocol: bytes, nominated: list[bytes]) -> bool:
        """Whether a 101 with these fields grants what was asked for."""
        return protocol.lower() == self.protocol and b"upgrade" in nominated

    # Open

    def start(self, upstream: "SwitchedConnection", head: bytes, behind: bytes) -> None:
        """The upstream has switched; `head` is the client's answer, `behind` came after it."""
        exchange, client = self.exchange, self._client
        route = exchange.route
        assert route is not None  # noqa: S101 - only a routed request is sent
        self.open = True
        self._upstream = upstream
        self._price = None if exchange.claims is None else route.tunnel_price
        if exchange.permit:
            exchange.permit, self._permit = False, exchange.id
        exchange.upstream = None
        upstream.deadline = client.deadline = NEVER
        client.write(head)
        down = self._down = Side(self, client.transport, client.writing_paused)
        up = self._up = Side(self, upstream.transport, upstream.writing_paused)
        down.peer, up.peer = up, down
        client.transport.set_protocol(down)
        upstream.transport.set_protocol(up)
        down.read_or_not()
        up.read_or_not()
        self._worker.deadlines.add(self)
        self._stay()
        if client.draining:
            self.drain()
        early, self._early = b"".join(self._early), []
        if early:
            self.on_data(down, early)
        if behind and not self.over:
            self.on_data(up, behind)

    def on_data(self, side: "Side", data: bytes) -> None:
        if self.over:
            return
        self._stay()
        try:
            if self._closing is not None:
                self._end_frame(side, data)
                return
            begin = self._messages(side, data) if self._price is None or self._price.per_message else []
        except websocket.BadFrame as e:
            self._finish() if self._closing else self.close(websocket.PROTOCOL_ERROR, str(e))
            return
        if side is self._down:
            self.exchange.body_bytes += len(data)
        if self._price is None:
            side.peer.write(data)
        elif self._price.per_message:
            self._offer_messages(side, data, begin)
        else:
            before, self._passed_bytes = self._passed_bytes, self._passed_bytes + len(data)
            units = -(-self._passed_bytes // MEBIBYTE) - -(-before // MEBIBYTE)
            self._offer(side, data, units)

    def _pass(self, side: "Side", data: bytes) -> None:
        """Sends on what is paid. Where bytes are charged, frames are read only now: a Close may be put in where the
        peer's stream stands."""
        if self._price is not None and not self._price.per_message:
            try:
                self._messages(side, data)
            except websocket.BadFrame as e:
                self.close(websocket.PROTOCOL_ERROR, str(e))
                return
        side.peer.write(data)

    def _messages(self, side: "Side", data: bytes) -> list[int]:
        if not self._frames:
            return []
        return (self._from_client if side is self._down else self._from_upstream).messages(data)

    def _stay(self) -> None:
        if self._closing is None:
            deadlines = self._worker.deadlines
            self.deadline = min(deadlines.now + self._worker.settings.timeouts.tunnel_idle_seconds, self._ends)

    @property
    def client_side(self) -> "Side":
        return self._down

    # Charged

    def _offer_messages(self, side: "Side", data: bytes, begin: list[int]) -> None:
        if side is self._up:
            side.peer.write(data)
            return
        first = begin[0] if begin else len(data)
        if first:  # the rest of what was paid, and control frames
            self._offer(side, data[:first], 0)
        for at, end in pairwise([*begin, len(data)]):
            self._offer(side, data[at:end], 1)

    def _offer(self, side: "Side", data: bytes, units: int) -> None:
        if not units and not self._waiting:
            self._pass(side, data)
            return
        self._waiting.append((side, data, units))
        if not side.held:
            side.held = True
            side.read_or_not()
        if not self._taking:
            self._taking = -1  # all that this read brought is taken together
            self._at_once = len(self._waiting)
            self._worker.loop.call_soon(self._take)

    def _take(self) -> None:
        """Asks for the first of what waits, as much as may be had at once."""
        claims, tunnel_price = self.exchange.claims, self._price
        if self.over or self._closing is not None or claims is None or tunnel_price is None:
            return
        count, units = 0, 0
        for _, _, cost in self._waiting:
            if count and (count >= self._at_once or units + cost > tunnel_price.units_max):
                break
            count, units = count + 1, units + cost
        self._taking = count
        worker = self._worker
        if self._permit:  # it passes on to this take: a tunnel has one, however often it pays
            worker.permits.release(claims.org, self._permit)
            self._permit = b""
        _Take(self, claims.org, {meter: cost * units for meter, cost in tunnel_price.charges.items()}, units).send()

    def on_paid(self, take: "_Take", admitted: Admitted) -> None:
        if self.over or self._closing is not None:
            self._worker.settlements.give_back(take.org, admitted.receipt, "the tunnel ended before it was used")
            if admitted.permit:
                self._worker.permits.release(take.org, take.id)
            return
        if admitted.permit:
            self._permit = take.id
            self._worker.permits.hold(take.org, take.id)
        self._let_pass()

    def _let_pass(self) -> None:
        """What the take was for goes on, and the next one follows."""
        left = len(self._waiting) - self._taking
        while self._waiting and (len(self._waiting) > left or not self._waiting[0][2]):
            side, data, _ = self._waiting.popleft()
            self._pass(side, data)
        if self._closing is not None:
            return
        self._at_once = max(self._taking, 1)
        if self._waiting:
            self._take()
            return
        self._taking = 0
        for side in (self._down, self._up):
            side.held = False
            side.read_or_not()

    def on_refused(self, take: "_Take", decision: Decision) -> None:
        if self.over or self._closing is not None:
            return
        match decision:
            case RateLimited() | ConcurrencyLimited() | Unknown() if self.exchange.in_shadow():
                self._let_pass()
            case RateLimited(retry_after_us=us):
                self._worker.loop.call_later(us / 1_000_000, self._take)
            case ConcurrencyLimited():
                self._worker.loop.call_later(PERMIT_WAIT_SECONDS, self._take)
            case Unknown():
                self.close(websocket.TRY_AGAIN_LATER, "the organization's plan is not known now")
            case _ if self._taking > 1:
                self._at_once = max(self._taking // 2, 1)
                self._take()
            case _ if self.exchange.in_shadow():
                self._let_pass()
            case _:
                self.close(websocket.POLICY_VIOLATION, "the quota does not allow more")

    def on_lost(self, take: "_Take", lost: Lost) -> None:
        if lost.applied is not False:
            self._worker.settlements.void(take.org, take.id)
            self._worker.permits.release(take.org, take.id)
        if self.over or self._closing is not None:
            return
        if self.exchange.in_shadow():
            self._let_pass()
        else:
            self.close(websocket.TRY_AGAIN_LATER, "the quota could not be checked")

    # Over

    def drain(self) -> None:
        """The worker stops: the tunnel has as long as that allows."""
        self._ends = self._worker.tunnels_end
        self.deadline = min(self.deadline, self._ends)

    def on_deadline(self) -> None:
        if self._closing is not None:
            self._finish()
        elif self._ends <= self._worker.deadlines.now:
            self.close(websocket.GOING_AWAY, "the gateway stops")
        else:
            self.close(websocket.GOING_AWAY, "nothing was sent for too long")

    def close(self, code: int, reason: str) -> None:
        """Ends both sides, and tells them why if they speak WebSocket."""
        self._closing = (code, reason)
        # Unpaid messages were read, and not sent on: the upstream's stream stands where the first of them begins.
        unsent = bool(self._waiting) and self._price is not None and self._price.per_message
        unpaid = bool(self._waiting) and not unsent
        self._waiting.clear()
        log.info("tunnel closed", request_id=self.exchange.id.decode(), code=code, reason=reason)
        if not self._frames:
            self._finish()
            return
        if unsent or self._from_client.between:
            self._up.write(websocket.close_frame(code, reason, masked=True))
            self._upstream_told = True
        if self._from_upstream.between:
            self._tell_client()
        elif unpaid or code == websocket.PROTOCOL_ERROR:
            self._finish()  # the rest of the frame is not the client's, and within it a Close would be payload
        else:  # a frame of ours would be taken for the payload of the one under way
            self.deadline = self._worker.deadlines.now + LINGER_SECONDS
            self._up.held = False
            self._up.read_or_not()

    def _end_frame(self, side: "Side", data: bytes) -> None:
        if side is self._up:
            end = self._from_upstream.rest_of_frame(data)
            side.peer.write(data[:end])
            if self._from_upstream.between:
                self._tell_client()

    def _tell_client(self) -> None:
        assert self._closing is not None  # noqa: S101 - it is why there is something to tell
        self._down.write(websocket.close_frame(*self._closing, masked=False))
        self._finish()

    def on_lost_side(self, side: "Side", error: Exception | None) -> None:
        if not self.over:
            self._finish(side, error)
        elif side is self._up:
            self._upstream.connection_lost(error)

    def _finish(self, lost: "Side | None" = None, error: Exception | None = None) -> None:
        """Hands both connections back, to be closed; `lost` is gone already."""
        self.over = True
        self._worker.deadlines.discard(self)
        self._waiting.clear()
        exchange, upstream, client = self.exchange, self._upstream, self._client
        if self._permit and exchange.claims is not None:
            self._worker.permits.release(exchange.claims.org, self._permit)
        upstream.tunnel_ended()
        if lost is self._up:
            upstream.connection_lost(error)
        else:
            upstream.deadline = self._worker.deadlines.now + LINGER_SECONDS
            if lost is None and self._upstream_told:
                self._up.linger()
            else:
                upstream.take_back()
        if lost is self._down:
            client.tunnel_ended(exchange)
            client.connection_lost(error)
        else:
            client.transport.set_protocol(client)
            client.tunnel_ended(exchange)


class Side(asyncio.Protocol):
    """One of the two connections of an open tunnel."""

    peer: "Side"

    def __init__(self, tunnel: Tunnel, transport: asyncio.Transport, writing_paused: bool) -> None:
        self.held = False
        """Something that came from here waits to be paid."""
        self.writing_paused = writing_paused
        self._tunnel = tunnel
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._tunnel.on_data(self, data)

    def write(self, data: bytes) -> None:
        if self is self._tunnel.client_side:
            self._tunnel.exchange.client.sent_bytes += len(data)
        self._transport.write(data)

    def linger(self) -> None:
        """Nothing is passed on any more. What comes until the other side has closed is dropped: with bytes unread the
        kernel would reset the connection, and the Close could be lost."""
        if not self._transport.is_closing():
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._transport.resume_reading()

    def read_or_not(self) -> None:
        if self._tunnel.over:
            return
        wanted = not self.held and not self.peer.writing_paused
        if not self._transport.is_closing() and wanted is not self._transport.is_reading():
            self._transport.resume_reading() if wanted else self._transport.pause_reading()

    def pause_writing(self) -> None:
        self.writing_paused = True
        self.peer.read_or_not()

    def resume_writing(self) -> None:
        self.writing_paused = False
        self.peer.read_or_not()

    def eof_received(self) -> bool | None:
        return None  # the end of one side is the end of the tunnel

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.on_lost_side(self, exc)


class _Take:
    """One charge of a tunnel. It waits for the ledger's reply."""

    __slots__ = ("charges", "id", "org", "tunnel", "units")

    def __init__(self, tunnel: Tunnel, org: str, charges: dict[str, int], units: int) -> None:
        self.tunnel = tunnel
        self.org = org
        self.charges = charges
        self.units = units
        self.id = tunnel.exchange.worker.next_id()

    def send(self) -> None:
        worker = self.tunnel.exchange.worker
        identity = worker.identity(self.org)
        charges = encode_charges(self.charges)
        argv = TAKE_ARGV % (self.id, identity.org_bulk, charges.bulk)
        worker.link.take(identity.keys_bulk, argv, charges.argv_count, self)

    def on_take(self, reply: bytes) -> None:
        decision = decode_take(reply, list(self.charges))
        if isinstance(decision, Admitted):
            self.tunnel.on_paid(self, decision)
        else:
            self.tunnel.on_refused(self, decision)

    def on_take_lost(self, lost: Lost) -> None:
        self.tunnel.on_lost(self, lost)
