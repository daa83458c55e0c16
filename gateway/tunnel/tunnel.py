"""An upgraded connection (RFC 9110 section 7.8): bytes both ways, and what they cost.

The request that asks for the upgrade goes the way of all requests. When the upstream answers 101, both connections are
handed over to the two sides of a tunnel, and back when it ends. Nothing is kept: a side is read only while the other
takes what it is sent, and while nothing waits to be charged.

A route may charge for messages or for mebibytes. What is not paid waits, and its side is not read. One take pays for
all that waits if that fits, and if not for half of it, and so on: exactly what is admitted goes on.
"""

from collections.abc import Mapping
from itertools import pairwise

import structlog

from common.transitions import after
from gateway.http import websocket
from gateway.http.deadlines import NEVER
from gateway.metering.tunnel_price import TunnelPrice
from gateway.routing.destinations import Destination
from gateway.tunnel import refused
from gateway.tunnel.charges import TunnelCharges, TunnelPermit
from gateway.tunnel.closing import Ending, Unpaid, plan_close
from gateway.tunnel.neighbours import TunnelClient, TunnelExchange, TunnelWorker
from gateway.tunnel.refused import Why
from gateway.tunnel.sides import Side
from gateway.tunnel.states import TRANSITIONS, TunnelEvent, TunnelState
from gateway.upstream.connection.carried import SwitchedConnection
from identity.claims import Claims
from identity.refusals import TokenRefused

log = structlog.get_logger()

EARLY_BYTES_MAX = 65_536  # of what a client sends before the upstream has switched; then it is read no further
LINGER_SECONDS = 2.0
MEBIBYTE = 1 << 20


class Tunnel:
    """One upgrade: asked for, then open, then over."""

    def __init__(
        self,
        worker: TunnelWorker,
        exchange: TunnelExchange,
        client: TunnelClient,
        protocol: bytes,
        price: TunnelPrice | None,
    ) -> None:
        self.protocol = protocol
        """The token that the client asked for, in lower case."""
        self.deadline = NEVER
        self._state = TunnelState.ASKED
        self._worker = worker
        self._exchange = exchange
        self._client = client
        self._price = price
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._upstream: SwitchedConnection
        self._down: Side  # what the client is on
        self._up: Side
        self._from_client = websocket.Frames(masked=True) if protocol == b"websocket" else None
        self._from_upstream = websocket.Frames(masked=False) if protocol == b"websocket" else None
        self._close_frame = (0, "")  # code and reason, while it closes
        self._upstream_knows = False  # of the Close
        self._ends = NEVER  # loop time, of a stopping worker
        self._permit: TunnelPermit | None = None
        self._charges: TunnelCharges | None = None
        self._passed_bytes = 0  # both ways

    @property
    def open(self) -> bool:
        """Whether it has both connections."""
        return self._state is TunnelState.OPEN or self._state is TunnelState.CLOSING

    @property
    def over(self) -> bool:
        return self._state is TunnelState.OVER

    # Asked for

    def on_early(self, data: bytes) -> None:
        """Bytes behind the request. They go upstream when it has switched."""
        if self._exchange.responded:
            return
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes > EARLY_BYTES_MAX:
            self._client.pause_reading()

    def answers(self, protocol: bytes, nominated: list[bytes]) -> bool:
        """Whether a 101 with these fields grants what was asked for."""
        return protocol.lower() == self.protocol and b"upgrade" in nominated

    # Open

    def start(self, upstream: SwitchedConnection, head: bytes, behind: bytes) -> None:
        """The upstream has switched; `head` is the client's answer, `behind` came after it."""
        self._state = after(TRANSITIONS, self._state, TunnelEvent.SWITCHED)
        exchange, client = self._exchange, self._client
        self._upstream = upstream
        take_id = exchange.hand_to_tunnel()
        if (claims := exchange.claims) is not None:
            permit = self._permit = TunnelPermit(self._worker.permits, claims.org, take_id)
            if self._price is not None:
                self._charges = TunnelCharges(self._worker, self, claims, self._price, permit, self)
        upstream.deadline = client.deadline = NEVER
        client.write(head)
        down = self._down = Side(self, client.transport, client.writing_paused, counted=client)
        up = self._up = Side(self, upstream.transport, upstream.writing_paused)
        down.peer, up.peer = up, down
        client.transport.set_protocol(down)
        upstream.transport.set_protocol(up)
        down.read_or_not()
        up.read_or_not()
        self._worker.deadlines.add(self)
        self._expect_bytes()
        if client.draining:
            self.drain()
        early, self._early = b"".join(self._early), []
        if early:
            self.on_data(down, early)
        if behind and not self.over:
            self.on_data(up, behind)

    def on_data(self, side: Side, data: bytes) -> None:
        if self.over:
            return
        charges = self._charges
        try:
            if self._state is TunnelState.CLOSING:
                self._end_frame(side, data)
                return
            self._expect_bytes()
            begin = self._messages(side, data) if charges is None or charges.per_message else []
        except websocket.BadFrame as e:
            self._on_bad_frame(e)
            return
        if side is self._down:
            self._exchange.body_bytes += len(data)
        if charges is None:
            side.peer.write(data)
        elif charges.per_message:
            self._offer_messages(charges, side, data, begin)
        else:
            before, self._passed_bytes = self._passed_bytes, self._passed_bytes + len(data)
            units = -(-self._passed_bytes // MEBIBYTE) - -(-before // MEBIBYTE)
            charges.offer(side, data, units)

    def _offer_messages(self, charges: TunnelCharges, side: Side, data: bytes, begin: list[int]) -> None:
        if side is self._up:
            side.peer.write(data)
            return
        first = begin[0] if begin else len(data)
        if first:  # the rest of what was paid, and control frames
            charges.offer(side, data[:first], 0)
        for at, end in pairwise([*begin, len(data)]):
            charges.offer(side, data[at:end], 1)

    def pass_on(self, side: Side, data: bytes) -> None:
        """Sends on what is paid. Where bytes are charged, frames are read only now: a Close may be put in where the
        peer's stream is."""
        if self._charges is not None and not self._charges.per_message:
            try:
                self._messages(side, data)
            except websocket.BadFrame as e:
                self.close(websocket.PROTOCOL_ERROR, str(e))
                return
        side.peer.write(data)

    def in_shadow(self, *, of_principal: bool = False) -> bool:
        return self._exchange.in_shadow(of_principal=of_principal)

    def allow(self, claims: Claims) -> TokenRefused | None:
        return self._worker.decisions.refusal(self._exchange, self._destination, claims)

    def keep(self, why: Why, charges: Mapping[str, int]) -> None:
        shadow = self._exchange.in_shadow(of_principal=isinstance(why, TokenRefused))
        refused.keep(self._worker.refused, self._exchange, self._destination, why, charges, shadow=shadow)

    @property
    def _destination(self) -> Destination:
        destination = self._exchange.destination
        assert isinstance(destination, Destination)  # noqa: S101 - what is forwarded was routed
        return destination

    def release_sides(self) -> None:
        self._down.release()
        self._up.release()

    def _messages(self, side: Side, data: bytes) -> list[int]:
        frames = self._from_client if side is self._down else self._from_upstream
        return [] if frames is None else frames.messages(data)

    def _expect_bytes(self) -> None:
        idle_seconds = self._worker.settings.timeouts.tunnel_idle_seconds
        self.deadline = min(self._worker.deadlines.now + idle_seconds, self._ends)

    # Over

    def drain(self) -> None:
        """The worker stops: the tunnel has as long as that allows."""
        self._ends = self._worker.tunnels_end
        self.deadline = min(self.deadline, self._ends)

    def on_deadline(self) -> None:
        if self._state is TunnelState.CLOSING:
            self._finish()
        elif self._ends <= self._worker.deadlines.now:
            self.close(websocket.GOING_AWAY, "the gateway stops")
        else:
            self.close(websocket.GOING_AWAY, "nothing was sent for too long")

    def _on_bad_frame(self, bad: websocket.BadFrame) -> None:
        if self._state is TunnelState.CLOSING:
            self._finish()
        else:
            self.close(websocket.PROTOCOL_ERROR, str(bad))

    def close(self, code: int, reason: str) -> None:
        """Ends both sides, and says why if they speak WebSocket."""
        self._state = after(TRANSITIONS, self._state, TunnelEvent.CLOSED)
        self._close_frame = (code, reason)
        unpaid = Unpaid.NOTHING if self._charges is None else self._charges.end()
        log.info("tunnel closed", request_id=self._exchange.id.decode(), code=code, reason=reason)
        plan = plan_close(code, unpaid, self._from_client, self._from_upstream)
        if plan.tell_upstream:
            self._up.write(websocket.close_frame(code, reason, masked=True))
            self._upstream_knows = True
        match plan.client:
            case Ending.CLOSE_FRAME:
                self._tell_client()
            case Ending.AT_ONCE:
                self._finish()
            case Ending.AFTER_FRAME:
                self.deadline = self._worker.deadlines.now + LINGER_SECONDS
                self._up.release()

    def _end_frame(self, side: Side, data: bytes) -> None:
        frames = self._from_upstream
        if side is self._up and frames is not None:
            end = frames.rest_of_frame(data)
            side.peer.write(data[:end])
            if frames.between:
                self._tell_client()

    def _tell_client(self) -> None:
        self._down.write(websocket.close_frame(*self._close_frame, masked=False))
        self._finish()

    def on_lost_side(self, side: Side, error: Exception | None) -> None:
        if not self.over:
            self._finish(side, error)
        elif side is self._up:
            self._upstream.connection_lost(error)

    def _finish(self, lost: Side | None = None, error: Exception | None = None) -> None:
        """Hands both connections back, to be closed; `lost` is gone already."""
        self._state = after(TRANSITIONS, self._state, TunnelEvent.ENDED)
        self._worker.deadlines.discard(self)
        if self._charges is not None:
            self._charges.end()
        if self._permit is not None:
            self._permit.release()
        self._end_upstream(lost, error)
        if lost is self._down:
            self._client.tunnel_ended()
            self._client.connection_lost(error)
        else:
            self._client.take_back()
            self._client.tunnel_ended()

    def _end_upstream(self, lost: Side | None, error: Exception | None) -> None:
        upstream = self._upstream
        upstream.tunnel_ended()
        if lost is self._up:
            upstream.connection_lost(error)
            return
        upstream.deadline = self._worker.deadlines.now + LINGER_SECONDS
        if lost is None and self._upstream_knows:
            self._up.linger()
        else:
            upstream.take_back()
