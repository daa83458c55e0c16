"""Keeping the history: what a look at Stripe shows becomes a state of each subscription, where something has changed.

It is written in the transaction that applies the look. The organization is held, so states of one subscription follow
one another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from control import sql
from control.billing.history.annual_value import Definition, Discount, Item
from control.billing.history.record import Record, record_of
from control.billing.history.timeline import Held, Since, changed_at, first_states
from control.billing.objects import Object
from control.db import Connection
from control.moments import MICROSECOND, moment
from control.sql.analytics import HeldState


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look saw, and when."""

    subscriptions: Sequence[Object]
    customers: Sequence[Object]
    plans: Mapping[str, str]
    """The plan that a price is the own one of."""
    events: Mapping[str, datetime]
    """By subscription, and by customer: when the newest event about it was made that led to the look."""
    at: datetime
    """When the newest event was made that led to the look, whatever it is about; else the moment of the look."""


async def keep(connection: Connection, org: str, seen: Seen, now: float) -> None:
    """Adds what is new to the history, and derives the organization's movements again where something is."""
    records = [record_of(each, org, seen.plans) for each in seen.subscriptions]
    held = await sql.analytics.newest_states(connection, subscriptions=[each.subscription for each in records])
    last = {each.subscription: each for each in held}
    changed = False
    for record in records:
        newest, at = last.get(record.subscription), seen.events.get(record.subscription, seen.at)
        changed |= await _keep_one(connection, record, newest, at, moment(now))
    for customer in seen.customers:
        if customer.get("deleted"):
            changed |= await _end_with_customer(connection, customer["id"], seen, moment(now))
    if changed:
        await derive(connection, org)


async def _keep_one(
    connection: Connection, record: Record, last: HeldState | None, told_at: datetime, now: datetime
) -> bool:
    """Whether there was something to add."""
    if last is None:
        states = first_states(record)
    elif _same(last, content_of(record)):
        return False
    elif last.assumed and _completes(last, record):
        await sql.analytics.drop_state(connection, subscription=record.subscription, valid_from=last.valid_from)
        states = [Since(record, last.valid_from)]
    else:
        at = changed_at(Held(last.status, last.valid_from), record, told_at)
        await sql.analytics.end_state(connection, subscription=record.subscription, at=at)
        states = [Since(record, at)]
    ends = [*(each.at for each in states[1:]), None]
    for state, valid_to in zip(states, ends, strict=True):
        annual = {each: state.record.annual(each) for each in Definition}
        await sql.analytics.put_state(
            connection,
            subscription=record.subscription,
            valid_from=state.at,
            valid_to=valid_to,
            annual_stripe=annual[Definition.STRIPE],
            annual_chartmogul=annual[Definition.CHARTMOGUL],
            annual_baremetrics=annual[Definition.BAREMETRICS],
            assumed=state.assumed,
            recorded_at=now,
            **content_of(state.record),
        )
    return True


async def _end_with_customer(connection: Connection, customer: str, seen: Seen, now: datetime) -> bool:
    """Stripe has the customer no more, and with it went what it had subscribed. Whether there was something."""
    live = await sql.analytics.live_states(connection, customer=customer)
    for each in live:
        # Stripe tells of both ends, in any order: either may have led to the look.
        at = seen.events.get(customer) or seen.events.get(each.subscription, seen.at)
        ended = max(at, each.valid_from + MICROSECOND)
        await sql.analytics.end_state(connection, subscription=each.subscription, at=ended)
        await sql.analytics.put_state(
            connection,
            subscription=each.subscription,
            valid_from=ended,
            valid_to=None,
            org=each.org,
            customer=each.customer,
            status="canceled",
            currency=each.currency,
            plan=each.plan,
            items=each.items,
            discounts=each.discounts,
            trial_start=each.trial_start,
            trial_end=each.trial_end,
            cancel_at=None,
            ended_at=ended,
            annual_stripe=Decimal(0),
            annual_chartmogul=Decimal(0),
            annual_baremetrics=Decimal(0),
            priced=each.priced,
            assumed=False,
            recorded_at=now,
        )
    return bool(live)


async def move(connection: Connection, customer: str, org: str) -> None:
    """What the customer has ever subscribed is the organization's."""
    before = await sql.analytics.move_history(connection, customer=customer, org=org)
    for each in sorted({*before, org}) if before else ():
        await derive(connection, each)


async def derive(connection: Connection, org: str) -> None:
    """Makes the organization's movements what its history says."""
    await sql.analytics.drop_movements(connection, org=org)
    await sql.analytics.derive_movements(connection, org=org)


def content_of(record: Record) -> dict[str, Any]:
    """As `put_state` takes it, but for times and values."""
    return {
        "org": record.org,
        "customer": record.customer,
        "status": record.status,
        "currency": record.currency,
        "plan": record.plan,
        "items": [_item(each) for each in record.items],
        "discounts": [_discount(each) for each in record.discounts],
        "trial_start": _at(record.trial_start),
        "trial_end": _at(record.trial_end),
        "cancel_at": _at(record.cancel_at),
        "ended_at": _at(record.ended_at),
        "priced": record.priced,
    }


def _same(held: HeldState, content: Mapping[str, Any]) -> bool:
    return not held.assumed and all(getattr(held, name) == value for name, value in content.items())


def _completes(held: HeldState, record: Record) -> bool:
    """Whether it is the state that was assumed, of which more is known now."""
    bought = [(each.get("price"), each.get("quantity")) for each in held.items]
    return held.status == record.status and sorted(bought, key=str) == sorted(
        ((each.price, each.quantity) for each in record.items), key=str
    )


def _item(item: Item) -> dict[str, Any]:
    return {
        "price": item.price,
        "plan": item.plan,
        "quantity": item.quantity,
        "unit_amount": _text(item.unit_amount),
        "interval": item.interval,
        "interval_count": item.interval_count,
        "metered": item.metered,
        "packaged_by": item.packaged_by,
        "packages_round_up": item.packages_round_up,
        "discounts": [_discount(each) for each in item.discounts],
    }


def _discount(discount: Discount) -> dict[str, Any]:
    return {
        "coupon": discount.coupon,
        "duration": discount.duration,
        "percent_off": _text(discount.percent_off),
        "amount_off": _text(discount.amount_off),
        "ends_at": discount.ends_at,
    }


def _text(number: Decimal | None) -> str | None:
    return None if number is None else format(number.normalize(), "f")


def _at(seconds: int | None) -> datetime | None:
    return None if seconds is None else moment(seconds)
