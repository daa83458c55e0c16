"""Organizations as the API shows them, with what they have, use and pay."""

from datetime import datetime

from control.api.entitlement_views import PeriodView
from control.directory.summary import Summary
from control.documents import View
from control.moments import moment
from quota.model import OveragePolicy


class OrganizationView(View):
    id: str
    name: str
    created_at: datetime
    deleted_at: datetime | None
    """When it was deleted: its tokens and keys are refused. null: it is there."""
    mirrored: bool
    """Its name and its members follow the identity provider."""
    shadow: bool
    """In shadow mode: what gateways would refuse is only recorded, and the request goes on."""


class MeterStandingView(View):
    meter: str
    allowance: int
    granted: int
    """What grants add to the allowance in this period."""
    used: int
    remaining: int
    overage: int
    """The part of `used` beyond allowance and grants."""
    fraction: float
    """`used` as a part of allowance and grants; above 1 where more is sold. 0 of a meter that has neither."""


class SummaryView(View):
    """What an organization has, uses and pays; usage as the database has it, half a second behind the gateways."""

    plan: str | None
    """Code of the plan; null: nothing is in force."""
    plan_name: str | None
    status: str
    """none: it never had an entitlement. ended: it has none any more. deleted: the organization is."""
    policy: OveragePolicy
    period: PeriodView | None
    meters: list[MeterStandingView]
    used_fraction: float
    """Of its fullest meter."""
    payment_failed: bool
    """An invoice of it could not be collected, or is overdue."""
    subscription_status: str | None
    """Stripe's word; null: it has no subscription."""
    renews_at: datetime | None
    """When the subscription is paid for again; null: it is not."""
    ends_at: datetime | None
    """When the subscription ends instead."""
    mrr_minor: dict[str, int]
    """Monthly recurring revenue by currency, in minor units, under Stripe's definition."""


class ListedOrganizationView(OrganizationView):
    summary: SummaryView


class CountView(View):
    found: int
    more: bool
    """There are more: only so many were counted."""


class OrganizationPage(View):
    organizations: list[ListedOrganizationView]
    """In the order that was asked for."""
    count: CountView | None = None
    """How many the filter matches, with the first page."""
    next: str | None
    """`after` of the next page; null on the last."""


def organization_view(summary: Summary) -> OrganizationView:
    return OrganizationView(
        id=summary.org,
        name=summary.name,
        created_at=summary.created_at,
        deleted_at=summary.deleted_at,
        mirrored=summary.mirrored,
        shadow=summary.shadow,
    )


def listed_view(summary: Summary) -> ListedOrganizationView:
    return ListedOrganizationView(**dict(organization_view(summary)), summary=summary_view(summary))


def summary_view(summary: Summary) -> SummaryView:
    period = summary.period
    return SummaryView(
        plan=summary.plan,
        plan_name=summary.plan_name,
        status=summary.status,
        policy=summary.policy,
        period=PeriodView(start=moment(period.start), end=moment(period.end)) if period else None,
        meters=[MeterStandingView.model_validate(each) for each in summary.meters],
        used_fraction=summary.used_fraction,
        payment_failed=summary.payment_failed,
        subscription_status=summary.subscription_status,
        renews_at=summary.renews_at,
        ends_at=summary.ends_at,
        mrr_minor=dict(summary.mrr_minor),
    )
