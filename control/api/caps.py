"""`/v1/organizations/{org}/caps`: how much overage an organization buys at most, by its own choice."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from control.access.permissions import Permission
from control.access.publishing import announce
from control.documents import Body, View, Whole
from control.entitlements import caps
from control.entitlements.caps import Cap
from control.entitlements.plans import Units
from control.http.context import Ctx
from control.http.guards import CallAuthor, Known, OfOrganization, Org
from control.http.refusals import DOCUMENTED
from quota.keys import METER_PATTERN

router = APIRouter(prefix="/v1/organizations/{org}/caps", tags=["entitlements"], responses=DOCUMENTED)

MeterName = Annotated[str, Path(pattern=METER_PATTERN)]
CapUnits = Annotated[Units, Whole, Field(strict=True)]


class CapBody(Body):
    units: CapUnits | None
    """Units beyond the allowance, of a period. 0: nothing is bought. null: no cap of the organization's own."""
    expected: CapUnits | None = None
    """The cap that is to be changed, null for none. Where it is another one by now, nothing changes (409). Left out:
    whatever it is."""


class CapPriceView(View):
    amount_minor: int
    """What `units` cost."""
    units: int
    currency: str


class CapView(View):
    meter: str
    units: int | None
    """The organization's own cap, in units beyond the allowance, of a period; null: none."""
    allowed: int | None
    """What the vendor sells at most; null: any number, 0: nothing."""
    in_force: int | None
    """The lower of the two, which gateways go by; null: any number."""
    price: CapPriceView | None
    """By the plan; null: units beyond the allowance have no price."""
    worth_minor: int | None
    """What the units in force cost at most; null: it is not known."""
    set_at: datetime | None
    """null: there never was a cap."""
    set_by: str | None
    """As the journal names the actor."""
    units_before: int | None
    """What the cap was before the last change; null: there was none."""


class CapList(View):
    caps: list[CapView]
    """Of each meter that the organization has, or had a cap of."""


@router.get("", dependencies=[OfOrganization(Permission.ENTITLEMENTS_READ), Known])
async def list_caps(org: Org, ctx: Ctx) -> CapList:
    """Lists how much of each meter may be bought beyond its allowance: by the plan, and by the organization itself."""
    async with ctx.db.snapshot() as connection:
        found = await caps.read(connection, org, ctx.clock())
    return CapList(caps=[_view(each) for each in found])


@router.put("/{meter}", dependencies=[OfOrganization(Permission.CAPS_WRITE), Known])
async def put_cap(org: Org, meter: MeterName, body: CapBody, ctx: Ctx, author: CallAuthor) -> CapList:
    """Sets the organization's own cap of a meter, or takes it away.

    It holds for every plan that the organization has or will have, and is never above what the plan allows. Gateways go
    by it from the answer on."""
    expected = [body.expected] if "expected" in body.model_fields_set else None
    await caps.set_cap(ctx.db, org, meter, body.units, ctx.clock(), author, expected)
    await announce(ctx.publisher, org)
    return await list_caps(org, ctx)


def _view(cap: Cap) -> CapView:
    price, sold = cap.price, cap.in_force
    return CapView(
        meter=cap.meter,
        units=cap.units,
        allowed=cap.allowed,
        in_force=sold,
        price=CapPriceView(amount_minor=price.amount_minor, units=price.units, currency=price.currency)
        if price
        else None,
        worth_minor=None if price is None or sold is None else price.of(sold),
        set_at=cap.set_at,
        set_by=cap.set_by,
        units_before=cap.units_before,
    )
