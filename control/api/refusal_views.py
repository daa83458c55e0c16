"""What gateways refused, as the API lists it. Pure, apart from the pydantic models."""

from datetime import datetime

from control.documents import View
from control.sql.decisions import Refusal


class RefusalView(View):
    request_id: str
    correlation: str | None
    at: datetime
    org: str | None
    key: str | None
    user: str | None
    route: str
    method: str
    status: int
    verdict: str
    shadow: bool
    """It was only recorded, and the request went on."""
    text: str
    charges: dict[str, int]
    gateway: str


class CountedView(View):
    since: datetime
    until: datetime
    refused: int
    """All refused requests of this time, kept or not."""
    kept: int
    not_kept: int
    """Beyond the bounds of a second (`refusals` in gateway.yaml), or lost while Redis was away."""


class RefusalPage(View):
    refusals: list[RefusalView]
    """The newest first."""
    counted: CountedView
    kept_days: int
    """For how long refusals are kept."""
    next: str | None
    """`before` of the next page; null on the last."""


def refusal_view(refusal: Refusal) -> RefusalView:
    return RefusalView(
        request_id=refusal.request_id,
        correlation=refusal.correlation,
        at=refusal.at,
        org=refusal.org,
        key=refusal.key_id,
        user=refusal.user_id,
        route=refusal.route,
        method=refusal.method,
        status=refusal.status,
        verdict=refusal.verdict,
        shadow=refusal.shadow,
        text=refusal.detail,
        charges={str(meter): int(units) for meter, units in refusal.charges},
        gateway=refusal.gateway,
    )
