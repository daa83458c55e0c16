"""What `/v1/analytics` answers. Amounts `…_minor` are of a month, in whole minor units of the currency; `annual` is the
exact amount of a year, as a decimal number in a text."""

from collections.abc import Sequence
from datetime import date, datetime

from control.analytics.amounts import monthly_minor, monthly_steps, per, plain
from control.analytics.bridge import Bridge, Kind
from control.analytics.recurring import Cohort, RetentionMonth
from control.billing.history.annual_value import Definition
from control.documents import View
from control.sql.movements import AtMoment, MovedSubscription, TrialMonth, WorthSubscription


class MrrRow(View):
    """Monthly recurring revenue in one currency, by one definition."""

    currency: str
    definition: Definition
    mrr_minor: int
    arr_minor: int
    """Of a year."""
    annual: str
    organizations: int
    """That are active: worth something."""
    subscriptions: int
    arpa_minor: int | None
    """MRR of an active organization on average."""


class BridgeStep(View):
    """Why one definition comes to another amount than the one before it."""

    from_: Definition
    to: Definition
    reason: str
    mrr_minor: int
    subscriptions: int


class CurrencyMrr(View):
    currency: str
    definitions: list[MrrRow]
    bridge: list[BridgeStep]
    """From the first definition to the last: each step is what the two see differently."""
    trialing: int
    """Subscriptions in their trial, which count for nothing."""
    unpriced: int
    """Subscriptions that should count, and have something whose amount is unknown here: a price with tiers, a coupon of
    a single item."""


class MrrView(View):
    day: date
    """The figures are those of the end of this day, UTC; of today, those of now."""
    currencies: list[CurrencyMrr]
    """Never added to each other."""


REPEATING = "Coupons that are not forever lower the amount"
UNPAID = "Unpaid subscriptions count until they are cancelled"


def mrr_of(row: AtMoment) -> CurrencyMrr:
    found = {
        Definition.STRIPE: (row.annual_stripe, row.organizations_stripe, row.subscriptions_stripe),
        Definition.BAREMETRICS: (row.annual_baremetrics, row.organizations_baremetrics, row.subscriptions_baremetrics),
        Definition.CHARTMOGUL: (row.annual_chartmogul, row.organizations_chartmogul, row.subscriptions_chartmogul),
    }
    discounts, unpaid = monthly_steps(
        row.annual_stripe,
        [row.annual_baremetrics - row.annual_stripe, row.annual_chartmogul - row.annual_baremetrics],
    )
    return CurrencyMrr(
        currency=row.currency,
        definitions=[
            MrrRow(
                currency=row.currency,
                definition=definition,
                mrr_minor=monthly_minor(annual),
                arr_minor=monthly_minor(annual * 12),
                annual=plain(annual),
                organizations=organizations,
                subscriptions=subscriptions,
                arpa_minor=per(annual / 12, organizations),
            )
            for definition, (annual, organizations, subscriptions) in found.items()
        ],
        bridge=[
            BridgeStep(
                from_=Definition.STRIPE,
                to=Definition.BAREMETRICS,
                reason=REPEATING,
                mrr_minor=discounts,
                subscriptions=row.discounted,
            ),
            BridgeStep(
                from_=Definition.BAREMETRICS,
                to=Definition.CHARTMOGUL,
                reason=UNPAID,
                mrr_minor=unpaid,
                subscriptions=row.unpaid,
            ),
        ],
        trialing=row.trialing,
        unpriced=row.unpriced,
    )


class MovementRow(View):
    """One period. `start_minor` + the movements = `end_minor`, to the minor unit."""

    start: date
    is_complete: bool
    """Whether the period is over."""
    start_minor: int
    new_minor: int
    """Of organizations that had never paid before."""
    reactivation_minor: int
    """Of organizations that had paid, and then nothing for a day at least."""
    expansion_minor: int
    contraction_minor: int
    """Negative."""
    churn_minor: int
    """Negative: of organizations that are left with nothing."""
    end_minor: int
    annual_start: str
    annual_end: str
    new: int
    """How many organizations that is, and so on below."""
    reactivations: int
    expansions: int
    contractions: int
    churned: int
    organizations_end: int
    """That are active."""


class MovementsView(View):
    currency: str
    definition: Definition
    bucket: str
    movements: list[MovementRow]


def movement_of(bridge: Bridge, is_complete: bool) -> MovementRow:
    steps, changes = bridge.steps_minor(), bridge.changes
    return MovementRow(
        start=bridge.start,
        is_complete=is_complete,
        start_minor=bridge.start_minor,
        new_minor=steps[Kind.NEW],
        reactivation_minor=steps[Kind.REACTIVATION],
        expansion_minor=steps[Kind.EXPANSION],
        contraction_minor=steps[Kind.CONTRACTION],
        churn_minor=steps[Kind.CHURN],
        end_minor=bridge.end_minor,
        annual_start=plain(bridge.annual_start),
        annual_end=plain(bridge.annual_end),
        new=changes.get(Kind.NEW, 0),
        reactivations=changes.get(Kind.REACTIVATION, 0),
        expansions=changes.get(Kind.EXPANSION, 0),
        contractions=changes.get(Kind.CONTRACTION, 0),
        churned=changes.get(Kind.CHURN, 0),
        organizations_end=bridge.organizations_end,
    )


class RetentionRow(View):
    """Rates of one month under one definition's formulas, 0.1 for 10 %; null: there was nothing to keep."""

    start: date
    definition: Definition
    is_complete: bool
    nrr: float | None
    gross_churn: float | None
    net_churn: float | None
    logo_churn: float | None
    quick_ratio: float | None
    gross_churn_daily: float | None
    """By ChartMogul's other formula: the rates of all days, added up."""
    net_churn_daily: float | None


class RetentionView(View):
    currency: str
    months: list[RetentionRow]


def retention_row(month: RetentionMonth, is_complete: bool) -> RetentionRow:
    rates, daily = month.rates, month.daily
    return RetentionRow(
        start=month.bridge.start,
        definition=month.definition,
        is_complete=is_complete,
        nrr=rates.nrr,
        gross_churn=rates.gross_churn,
        net_churn=rates.net_churn,
        logo_churn=rates.logo_churn,
        quick_ratio=rates.quick_ratio,
        gross_churn_daily=None if daily is None else daily.gross,
        net_churn_daily=None if daily is None else daily.net,
    )


class CohortRow(View):
    """A cohort at the end of a month."""

    cohort: date
    """The month in which its organizations paid first."""
    age_months: int
    start: date
    organizations: int
    """That are active."""
    mrr_minor: int
    logo_retention: float | None
    """Of the organizations at the end of the first month."""
    revenue_retention: float | None


class CohortsView(View):
    currency: str
    definition: Definition
    cohorts: list[CohortRow]


def cohort_rows(cohort: Cohort, starts: Sequence[date]) -> list[CohortRow]:
    first, first_annual = cohort.organizations[0], cohort.annual[0]
    return [
        CohortRow(
            cohort=cohort.began,
            age_months=age,
            start=start,
            organizations=organizations,
            mrr_minor=monthly_minor(annual),
            logo_retention=organizations / first if first else None,
            revenue_retention=float(annual / first_annual) if first_annual else None,
        )
        for age, (start, organizations, annual) in enumerate(
            zip(starts, cohort.organizations, cohort.annual, strict=True)
        )
    ]


class TrialRow(View):
    """Trials that began in a month, and what came of them until now."""

    start: date
    began: int
    converted: int
    """That were worth something afterwards."""
    running: int
    conversion: float | None
    """Of those that are over; null while none is."""


class TrialsView(View):
    currency: str
    months: list[TrialRow]


def trial_row(month: TrialMonth) -> TrialRow:
    over = month.began - month.running
    return TrialRow(
        start=month.start,
        began=month.began,
        converted=month.converted,
        running=month.running,
        conversion=month.converted / over if over else None,
    )


class SubscriptionRow(View):
    """A subscription that a figure is made of."""

    org: str
    name: str
    subscription: str
    customer: str
    plan: str | None
    status: str
    day: date | None
    """Of a movement; null: the figure is a balance."""
    kind: Kind | None
    mrr_minor: int
    """What it adds to the figure."""
    annual: str
    since: datetime | None
    """Of a balance: since when it is as it is."""
    is_priced: bool
    """Whether all that it is worth is known."""


class SubscriptionsView(View):
    currency: str
    definition: Definition
    subscriptions: list[SubscriptionRow]
    next: str | None
    """`after` of the next page; null on the last."""


def worth_row(row: WorthSubscription) -> SubscriptionRow:
    return SubscriptionRow(
        org=row.org,
        name=row.name,
        subscription=row.subscription,
        customer=row.customer,
        plan=row.plan,
        status=row.status,
        day=None,
        kind=None,
        mrr_minor=monthly_minor(row.annual),
        annual=plain(row.annual),
        since=row.valid_from,
        is_priced=row.priced,
    )


def moved_row(row: MovedSubscription) -> SubscriptionRow:
    return SubscriptionRow(
        org=row.org,
        name=row.name,
        subscription=row.subscription,
        customer=row.customer,
        plan=row.plan,
        status=row.status,
        day=row.day,
        kind=Kind(row.kind),
        mrr_minor=monthly_minor(row.annual),
        annual=plain(row.annual),
        since=None,
        is_priced=True,
    )
