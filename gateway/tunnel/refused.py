"""What is refused within a tunnel is kept like refused requests, under the id of the request that asked for it."""

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from gateway.decision import refusals
from gateway.http.head import RequestHead
from gateway.observe import record
from gateway.observe.refused import RefusedLog
from gateway.routing.destinations import Destination
from identity.claims import Claims
from identity.refusals import TokenRefused
from quota.model import Decision

PASSED: Final = "The tunnel goes on, in shadow mode."
CLOSED: Final = "The tunnel is closed."

Why = Decision | TokenRefused | None
"""None: nobody could say whether it may pass."""


class _Refused(NamedTuple):
    id: bytes
    head: RequestHead
    verdict: bytes


class AskingRequest(Protocol):
    """The request that asked for the tunnel, and was admitted."""

    claims: Claims | None

    @property
    def id(self) -> bytes: ...
    @property
    def head(self) -> RequestHead: ...


def keep(
    log: RefusedLog,
    request: AskingRequest,
    destination: Destination,
    why: Why,
    charges: Mapping[str, int],
    *,
    shadow: bool,
) -> None:
    """The status is that of a request which is refused for the same reason: the tunnel's own was 101."""
    decision = None
    if isinstance(why, TokenRefused):
        refusal, verdict = refusals.of_token(why), b"token_" + why.reason.encode()
    else:
        decision = why
        refusal = refusals.unchecked() if why is None else refusals.of_decision(why, charges, None)
        verdict = record.verdict_of(refusal.problem)
    log.keep(
        _Refused(request.id, request.head, verdict),
        request.claims,
        destination.route.name,
        destination.method,
        refusal.problem.status,
        f"{refusal.detail} {PASSED if shadow else CLOSED}",
        charges,
        decision,
        shadow,
    )
