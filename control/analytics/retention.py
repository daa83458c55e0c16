"""What is kept of the recurring revenue of those who paid already, by the formula of each definition. Pure.

docs/analytics.md has the formulas with their sources. A rate of nothing is unknown, not 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from control.analytics.bridge import NOTHING, Bridge, Kind
from control.billing.history.annual_value import Definition


@dataclass(frozen=True, slots=True)
class Retention:
    """Rates of one period, 0.1 for 10 %. None: there was nothing to keep."""

    nrr: float | None
    """Net revenue retention."""
    gross_churn: float | None
    """Of recurring revenue, lost by churn and contraction."""
    net_churn: float | None
    """The same less what those who paid already added. Negative: they added more."""
    logo_churn: float | None
    """Of organizations."""
    quick_ratio: float | None
    """Recurring revenue gained for each unit that was lost."""


def retention_of(definition: Definition, bridge: Bridge) -> Retention:
    amounts = {kind: Fraction(bridge.annual.get(kind, NOTHING)) for kind in Kind}
    start = Fraction(bridge.annual_start)
    churn, contraction = -amounts[Kind.CHURN], -amounts[Kind.CONTRACTION]
    expansion, reactivation = amounts[Kind.EXPANSION], amounts[Kind.REACTIVATION]
    lost = churn + contraction
    match definition:
        case Definition.CHARTMOGUL:
            net = lost - expansion - reactivation
        case Definition.BAREMETRICS:
            net = churn - expansion  # contraction is not in the formula, as it is printed
        case Definition.STRIPE:
            net = lost - expansion
    churned = bridge.changes.get(Kind.CHURN, 0)
    before = bridge.organizations_start
    if definition is Definition.STRIPE:
        before += bridge.changes.get(Kind.NEW, 0)
    gained = amounts[Kind.NEW] + expansion
    if definition is not Definition.BAREMETRICS:
        gained += reactivation
    return Retention(
        nrr=_rate(start - net, start),
        gross_churn=_rate(lost, start),
        net_churn=_rate(net, start),
        logo_churn=_rate(Fraction(churned), Fraction(before)),
        quick_ratio=_rate(gained, lost),
    )


@dataclass(frozen=True, slots=True)
class DailyChurn:
    """ChartMogul's other formula, which it calls Shopify's: the rates of all days, added up."""

    gross: float | None
    net: float | None


def daily_churn(days: Iterable[Bridge]) -> DailyChurn:
    gross = net = None
    for day in days:
        start = Fraction(day.annual_start)
        if start != 0:
            lost = -Fraction(day.annual.get(Kind.CHURN, NOTHING)) - Fraction(day.annual.get(Kind.CONTRACTION, NOTHING))
            end = Fraction(day.annual_end) - Fraction(day.annual.get(Kind.NEW, NOTHING))
            gross = (gross or Fraction(0)) + lost / start
            net = (net or Fraction(0)) + 1 - end / start
    return DailyChurn(None if gross is None else float(gross), None if net is None else float(net))


def _rate(part: Fraction, whole: Fraction) -> float | None:
    return None if whole == 0 else float(part / whole)
