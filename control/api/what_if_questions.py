"""A question about another plan, other limits or other prices, as a body and as a query."""

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import Field

from control.analytics.what_if.invoices import Catalogue
from control.analytics.what_if.sold_plans import LIFTED, MeterChange, PlanChange
from control.api.entitlements import RateBody
from control.api.key_views import QuotaBody, Quotas
from control.billing.overage.overage_price import OveragePrice
from control.documents import Body, BoundedMoment, Whole
from control.entitlements.plans import Meter, PlanCode, Units
from control.http.refusals import invalid_field
from control.moments import moment
from quota.access import KEY_ID_PATTERN, WINDOW_SECONDS_MAX
from quota.keys import ORG_PATTERN
from quota.model import CONCURRENT_MAX, OveragePolicy
from quota.terms import OwnLimits, Pace

RATE: Final = r"^(none|[1-9][0-9]{0,5}/[1-9][0-9]{0,3}(/[1-9][0-9]{0,5})?)$"
QUOTA: Final = r"^[a-z][a-z0-9_]{0,62}=[0-9]{1,15}(/[1-9][0-9]{0,7})?$"
CONCURRENT: Final = r"^(none|[1-9][0-9]{0,3})$"
ORGANIZATIONS_MAX: Final = 50  # of one answer: each is decided anew, request by request
ORGANIZATIONS_DEFAULT: Final = 20
DAYS_DEFAULT, DAYS_MAX = 90, 400
AHEAD_SECONDS: Final = 60  # Redis' clock, which dates what is recorded, may be ahead of ours
REQUEST_SECONDS_MAX: Final = 86_400
KEYS_MAX: Final = 20
AMOUNT_MAX: Final = 10**9

Amount = Annotated[int, Whole, Field(strict=True, ge=0, le=AMOUNT_MAX)]
KeyId = Annotated[str, Field(pattern=KEY_ID_PATTERN)]
OrgId = Annotated[str, Field(pattern=ORG_PATTERN)]


class OtherOverage(Body):
    """What further units cost."""

    amount_minor: Amount
    units: Annotated[int, Whole, Field(strict=True, ge=1, le=AMOUNT_MAX)] = 1


class OtherMeter(Body):
    """What is otherwise about a meter."""

    allowance: Annotated[Units, Whole, Field(strict=True)] | None = None
    """Units included in a period; null: as it was."""
    overage: OtherOverage | None = None
    """The price of units beyond; null: as it was."""


class OtherKey(Body):
    """Other limits of an API key's own, all the time."""

    quotas: Quotas = Field(default=[])
    rate: RateBody | None = None
    """null: none."""

    def limits(self, key: str) -> OwnLimits:
        rate = None if self.rate is None else self.rate.value()
        return OwnLimits(f"k:{key}", tuple(quota.value() for quota in self.quotas), Pace.of(rate))


class WhatIfBody(Body):
    """What would have been otherwise. Nothing: as it was, which shows that all of it can be recomputed."""

    plan: PlanCode | None = None
    """The newest version of this plan, in place of the one that each organization had."""
    policy: OveragePolicy | None = None
    meters: dict[Meter, OtherMeter] = Field(default={}, max_length=100)
    """Other allowances and prices, by meter."""
    price_minor: dict[str, Amount] = Field(default={}, max_length=2)
    """Other prices of the plan, by `month` and `year`."""
    rate: RateBody | Literal["none"] | None = None
    """Another rate limit of the plan; null: the plan's. What an admin has overridden for an organization stays."""
    concurrent_max: Annotated[int, Whole, Field(strict=True, ge=1, le=CONCURRENT_MAX)] | Literal["none"] | None = None
    """The same of concurrent requests."""
    request_seconds: Annotated[float, Field(gt=0, le=REQUEST_SECONDS_MAX)] | None = None
    """How long each request is supposed to be under way, which is not recorded. null: limits of concurrent requests
    refuse those that they have refused, and no others."""
    keys: dict[KeyId, OtherKey] = Field(default={}, max_length=KEYS_MAX)
    """Other limits of API keys of `org`, by key."""
    org: OrgId | None = None
    """Only this organization, request by request; null: a page of all."""
    on_plan: PlanCode | None = None
    """Only organizations that have this plan now."""
    since: BoundedMoment | None = None
    """Default: 90 days before `until`. An organization's time begins with its period."""
    until: BoundedMoment | None = None
    """Exclusive. Default: a minute ahead."""
    after: OrgId | None = None
    """The `next` of the page before."""
    limit: Annotated[int, Whole, Field(strict=True, ge=1, le=ORGANIZATIONS_MAX)] = ORGANIZATIONS_DEFAULT


class Asked(Body):
    """A question as the query of a GET has it: another plan, the allowance of one meter, other prices."""

    plan: PlanCode | None = None
    meter: Meter | None = None
    allowance: Annotated[Units | None, Field(description="Of `meter`, in a period.")] = None
    price_month: Annotated[int | None, Field(ge=0, le=AMOUNT_MAX, description="Minor units.")] = None
    price_year: Annotated[int | None, Field(ge=0, le=AMOUNT_MAX, description="Minor units.")] = None
    rate: Annotated[
        str | None,
        Field(
            pattern=RATE, description="`none`, or requests/seconds, with /burst if it is not 1.", examples=["10/1/20"]
        ),
    ] = None
    concurrent: Annotated[
        str | None, Field(pattern=CONCURRENT, description="Concurrent requests, or `none`.", examples=["4"])
    ] = None
    request_seconds: Annotated[
        float | None,
        Field(gt=0, le=REQUEST_SECONDS_MAX, description="For so long each request is supposed to be under way."),
    ] = None
    key: Annotated[
        KeyId | None, Field(description="An API key of `org`, by its id: other limits of its own; without them, none.")
    ] = None
    key_quota: Annotated[
        str | None,
        Field(
            pattern=QUOTA,
            description="Of `key`: meter=units in a period, or meter=units/seconds.",
            examples=["api_calls=100/3600"],
        ),
    ] = None
    key_rate: Annotated[str | None, Field(pattern=RATE, description="Of `key`, as `rate` is.")] = None
    org: OrgId | None = None
    on_plan: PlanCode | None = None
    since: Annotated[BoundedMoment | None, Field(alias="from", description="Default: 90 days before `to`.")] = None
    until: Annotated[BoundedMoment | None, Field(alias="to", description="Exclusive. Default: a minute ahead.")] = None
    after: OrgId | None = None
    limit: Annotated[int, Field(ge=1, le=ORGANIZATIONS_MAX)] = ORGANIZATIONS_DEFAULT

    def body(self) -> WhatIfBody:
        """Raises Refusal."""
        common = ("plan", "request_seconds", "org", "on_plan", "since", "until", "after", "limit")
        prices = {"month": self.price_month, "year": self.price_year}
        rate, concurrent = self.rate, self.concurrent
        return WhatIfBody(
            **{name: getattr(self, name) for name in common},
            meters={} if self.meter is None else {self.meter: OtherMeter(allowance=self.allowance)},
            rate="none" if rate == "none" else None if rate is None else _rate(rate),
            concurrent_max="none" if concurrent == "none" else None if concurrent is None else int(concurrent),
            price_minor={interval: amount for interval, amount in prices.items() if amount is not None},
            keys=self._keys(),
        )

    def _keys(self) -> dict[str, OtherKey]:
        if self.key is None:
            if self.key_quota is not None or self.key_rate is not None:
                raise invalid_field("query.key", "is to be named: it is the key that has these limits")
            return {}
        quotas = [] if self.key_quota is None else [_quota(self.key_quota)]
        rate = None if self.key_rate in (None, "none") else _rate(str(self.key_rate))
        return {self.key: OtherKey(quotas=quotas, rate=rate)}


def time_of(body: WhatIfBody, now: float, where: str) -> tuple[datetime, datetime]:
    until = body.until or moment(now + AHEAD_SECONDS)
    since = body.since or max(until - timedelta(days=DAYS_DEFAULT), moment(0))
    if not timedelta(0) < until - since <= timedelta(days=DAYS_MAX):
        field, until_field = ("from", "to") if where == "query" else ("since", "until")
        raise invalid_field(f"{where}.{field}", f"must be before `{until_field}`, and at most {DAYS_MAX} days")
    return since, until


def change_of(body: WhatIfBody, catalogue: Catalogue, where: str) -> PlanChange:
    """Raises Refusal for a plan or a meter that does not exist."""
    if body.keys and body.org is None:
        named = "query.key" if where == "query" else "body.keys"
        raise invalid_field(named, "belong to an organization, which is to be named (`org`)")
    if unknown := body.price_minor.keys() - {"month", "year"}:
        raise invalid_field(f"{where}.price_minor", f"there is no interval {min(unknown)}, only month and year")
    plan = None
    for field, code in (("plan", body.plan), ("on_plan", body.on_plan)):
        if code is not None and not any(plan.code == code for plan in catalogue.plans.values()):
            raise invalid_field(f"{where}.{field}", f"there is no plan {code}")
    if body.plan is not None:
        plan = max((p for p in catalogue.plans.values() if p.code == body.plan), key=lambda p: p.version)
    if unknown_meters := body.meters.keys() - {m for p in catalogue.plans.values() for m in p.meters}:
        named = "query.meter" if where == "query" else "body.meters"
        raise invalid_field(named, f"no plan has the meter {min(unknown_meters)}")
    meters = {
        meter: MeterChange(
            other.allowance,
            None if other.overage is None else OveragePrice(other.overage.amount_minor, other.overage.units),
        )
        for meter, other in body.meters.items()
    }
    return PlanChange(
        plan,
        body.policy,
        meters,
        body.price_minor,
        LIFTED if body.rate == "none" else None if body.rate is None else body.rate.value(),
        LIFTED if body.concurrent_max == "none" else body.concurrent_max,
        {key: other.limits(key) for key, other in body.keys.items()},
    )


def _quota(text: str) -> QuotaBody:
    """As a query has it."""
    meter, _, rest = text.partition("=")
    units, _, seconds = rest.partition("/")
    if seconds and int(seconds) > WINDOW_SECONDS_MAX:
        raise invalid_field("query.key_quota", f"must be for at most {WINDOW_SECONDS_MAX} seconds")
    return QuotaBody(meter=meter, units=int(units), window_seconds=int(seconds) if seconds else None)


def _rate(text: str) -> RateBody:
    """As a query has it."""
    requests, seconds, *burst = text.split("/")
    return RateBody(requests=int(requests), seconds=int(seconds), burst=int(burst[0]) if burst else 1)
