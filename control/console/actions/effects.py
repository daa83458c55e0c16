"""An effect as rows that people read: what it is about, now and then. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from control.actions.effect import ComingInvoiceView, Effect, EnforcedView, MeterEffect
from control.console.frame.formats import beyond, count, money


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    before: str
    after: str

    @property
    def changed(self) -> bool:
        return self.before != self.after


def entitlement_rows(effect: Effect) -> list[Row]:
    """Those that change first."""
    rows = list(_entitlement(effect.entitlement.before, effect.entitlement.after))
    return sorted(rows, key=lambda row: not row.changed)


def invoice_rows(effect: Effect) -> list[Row]:
    invoice = effect.invoice
    rows = []
    if invoice.now is not None:
        rows.append(Row("Invoiced at once", "nothing", _total(invoice.now)))
    if invoice.before is not None or invoice.after is not None:
        rows.append(Row("Next invoice", _total(invoice.before), _total(invoice.after)))
        rows.append(Row("Left to pay of it", _due(invoice.before), _due(invoice.after)))
        rows.append(Row("On", _day(invoice.before), _day(invoice.after)))
    return rows


def difference_rows(effect: Effect) -> list[Row]:
    return [
        Row(each.what, _text(each.before, each.currency), _text(each.after, each.currency))
        for each in effect.differences
    ]


def _entitlement(before: EnforcedView, after: EnforcedView) -> Iterator[Row]:
    yield Row("Status", before.status, after.status)
    yield Row("Plan", _plan(before), _plan(after))
    yield Row("Beyond the allowance", beyond(before.policy), beyond(after.policy))
    yield Row("Rate limit", before.rate or "none", after.rate or "none")
    yield Row("Requests at once", _number(before.concurrent_max), _number(after.concurrent_max))
    yield Row("Shadow mode", _on(before.shadow), _on(after.shadow))
    yield Row("Scheduled", _scheduled(before), _scheduled(after))
    was, is_ = ({each.meter: each for each in view.meters} for view in (before, after))
    for meter in sorted({*was, *is_}):
        yield from _meter(meter, was.get(meter), is_.get(meter))


def _meter(meter: str, before: MeterEffect | None, after: MeterEffect | None) -> Iterator[Row]:
    for what, name in (("allowance", "allowance"), ("with grants", "limit"), ("remaining", "remaining")):
        yield Row(f"{meter}: {what}", _number(getattr(before, name, 0)), _number(getattr(after, name, 0)))
    yield Row(f"{meter}: overage at most", _overage(before), _overage(after))


def _overage(meter: MeterEffect | None) -> str:
    if meter is None:
        return "0"
    return "no cap" if meter.overage_max is None else count(meter.overage_max)


def _plan(view: EnforcedView) -> str:
    return "none" if view.plan is None else f"{view.plan} (version {view.plan_version})"


def _scheduled(view: EnforcedView) -> str:
    coming = [f"{each.plan or 'end'} from {each.at:%Y-%m-%d %H:%M}" for each in view.scheduled]
    return ", ".join(coming) or "nothing"


def _on(value: bool) -> str:
    return "on: nothing is refused" if value else "off"


def _number(value: int | None) -> str:
    return "any" if value is None else count(value)


def _total(invoice: ComingInvoiceView | None) -> str:
    return "none" if invoice is None else money(invoice.total_minor, invoice.currency)


def _due(invoice: ComingInvoiceView | None) -> str:
    return "none" if invoice is None else money(invoice.due_minor, invoice.currency)


def _day(invoice: ComingInvoiceView | None) -> str:
    return "none" if invoice is None or invoice.at is None else f"{invoice.at:%Y-%m-%d}"


def _text(value: Any, currency: str | None) -> str:
    if currency is not None:
        return money(value, currency)
    if value is None or value == []:
        return "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return count(value) if isinstance(value, int) else str(value)
