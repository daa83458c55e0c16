"""What a connection to an upstream carries, as this room uses it: a request, its client, and a tunnel."""

import asyncio
from typing import Protocol

from gateway.http.head import AnswerHead, RequestHead
from gateway.upstream.connection.failures import UpstreamFailure


class Client(Protocol):
    """Who gets the answer."""

    @property
    def writing_paused(self) -> bool:
        """Whether earlier answers are still on their way to it."""
        ...

    def write(self, data: bytes) -> None: ...
    def date_field(self) -> bytes:
        """The line for an answer that has no Date."""
        ...


class Report(Protocol):
    """Reads the answer for what it reports."""

    def on_read(self) -> None: ...
    def on_head(self, fields: list[bytes]) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_trailer(self, name: bytes, value: bytes) -> None: ...


class Carrier(Protocol):
    """The connection that carries a request, as the request uses it."""

    @property
    def host_line(self) -> bytes:
        """The Host that its target has; empty for the client's own."""
        ...

    def write(self, data: bytes) -> None:
        """More of the request's body, framed."""
        ...

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abandon(self) -> None:
        """Nobody waits for the rest of the answer."""
        ...


class SwitchedConnection(Protocol):
    """A connection that speaks another protocol from now on, as a tunnel uses it."""

    deadline: float

    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def writing_paused(self) -> bool: ...
    def tunnel_ended(self) -> None:
        """It carries nothing any more. Its end is still to come."""
        ...

    def take_back(self) -> None:
        """The tunnel needs its bytes no more: it is closed."""
        ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class Tunnel(Protocol):
    """The upgrade that a request asks for."""

    def answers(self, protocol: bytes, nominated: list[bytes]) -> bool:
        """Whether a 101 with these fields grants what was asked for."""
        ...

    def start(self, upstream: SwitchedConnection, head: bytes, behind: bytes) -> None: ...


class CarriedRequest(Protocol):
    """One request on its way to the upstream, and what becomes of its answer."""

    upstream: Carrier | None
    """The connection that carries it, while one does."""
    expires: float
    """Loop time by which the whole answer must be there."""
    tried: tuple[str, ...]
    """The names of the targets that failed it."""
    resent: bool
    """It was sent a second time."""
    keep_alive: bool
    """Whether the client's connection goes on after the answer."""

    @property
    def method(self) -> bytes: ...
    @property
    def head(self) -> RequestHead: ...
    @property
    def client(self) -> Client: ...
    @property
    def report(self) -> Report | None: ...
    @property
    def tunnel(self) -> Tunnel | None: ...
    @property
    def over(self) -> bool:
        """Nothing is wanted of the upstream any more."""
        ...

    @property
    def rate_fields(self) -> bytes:
        """The gateway's own RateLimit fields, in place of the upstream's."""
        ...

    # The request

    @property
    def request_complete(self) -> bool: ...
    @property
    def body_bytes(self) -> int:
        """Read of its body so far."""
        ...

    @property
    def body_at_hand(self) -> bool:
        """Whether all that came of its body could be sent once more."""
        ...

    def take_request(self) -> bytes:
        """Its head, and what has come of its body. Once, by each connection."""
        ...

    def take_back_body(self) -> None:
        """What was sent of its body is to be sent again."""
        ...

    def hold_client(self) -> None: ...
    def release_client(self) -> None: ...

    # The answer

    def answer_head(self, status: int, reason: bytes, fields: bytes) -> bytes: ...
    def answer_known(self, known: AnswerHead, body: bytes) -> bytes:
        """The whole answer, of a head that was parsed before."""
        ...

    def switching_head(self, reason: bytes, fields: bytes) -> bytes: ...
    def edited(self, fields: bytes) -> bytes: ...
    def edited_trailers(self, lines: list[bytes]) -> list[bytes]: ...
    def on_answered(self) -> None: ...
    def on_upstream_failed(self, failure: UpstreamFailure) -> None: ...
