"""Phases of a subscription schedule, rebuilt from what Stripe has: an update replaces them as a whole, so that whatever
is not sent again is lost. Pure.

https://docs.stripe.com/api/subscription_schedules/update
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from control.billing.failures import StripeRefused
from control.billing.objects import Object, id_of

Rebuild = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _ids(values: Sequence[Any]) -> list[str | None]:
    return [id_of(each) for each in values]


def _discounts(values: Sequence[Any]) -> list[Object]:
    """As a phase has them, or by their ids, as a subscription has them. One that is redeemed goes on: its coupon would
    begin anew."""
    return [_discount(each) for each in values]


def _discount(value: Any) -> Object:
    if isinstance(value, str) or value.get("object") == "discount":
        return {"discount": id_of(value)}
    names = ("discount", "promotion_code", "coupon")
    return next({name: id_of(value[name])} for name in names if value.get(name) is not None)


def _party(value: Object) -> Object:
    return {
        name: reference
        for name, reference in (("type", value["type"]), ("account", id_of(value.get("account"))))
        if reference
    }


def _automatic_tax(value: Object) -> Object:
    liability = value.get("liability")
    return {"enabled": value["enabled"], **({"liability": _party(liability)} if liability else {})}


def _invoice_settings(value: Object) -> Object:
    rebuilt = {
        "account_tax_ids": _ids(value.get("account_tax_ids") or []),
        "custom_fields": value.get("custom_fields"),
        "days_until_due": value.get("days_until_due"),
        "description": value.get("description"),
        "footer": value.get("footer"),
        "issuer": _party(value["issuer"]) if value.get("issuer") else None,
    }
    return _filled(rebuilt)


def _transfer_data(value: Object) -> Object:
    return _filled({"amount_percent": value.get("amount_percent"), "destination": id_of(value["destination"])})


def _invoice_items(values: Sequence[Object]) -> list[Object]:
    return [
        _filled(
            {
                "discountable": each.get("discountable"),
                "discounts": _discounts(each.get("discounts") or []),
                "metadata": each.get("metadata"),
                "period": each.get("period") and {name: _filled(each["period"][name]) for name in ("start", "end")},
                "price": id_of(each["price"]),
                "quantity": each.get("quantity"),
                "tax_rates": _ids(each.get("tax_rates") or []),
            }
        )
        for each in values
    ]


SETTINGS: Mapping[str, Rebuild] = {
    "application_fee_percent": _same,
    "automatic_tax": _automatic_tax,
    "billing_thresholds": _same,
    "collection_method": _same,
    "default_payment_method": id_of,
    "default_tax_rates": _ids,
    "description": _same,
    "discounts": _discounts,
    "invoice_settings": _invoice_settings,
    "metadata": _same,
    "on_behalf_of": id_of,
    "transfer_data": _transfer_data,
}
"""Of a phase, and of its subscription: they hold in the next phase, too."""

RUNNING: Mapping[str, Rebuild] = {
    "add_invoice_items": _invoice_items,
    "billing_cycle_anchor": _same,
    "currency": _same,
    "proration_behavior": _same,
    "start_date": _same,
    "trial": _same,
    "trial_end": _same,
}
"""Of the running phase alone."""

DERIVED: Mapping[str, str] = {
    "duration": "end_date says how long a running phase lasts; the next one is given its own",
    "end_date": "of the running phase: the end of what is paid",
    "items": "rebuilt one by one",
}
"""Fields of a phase that are not carried over as they are, and why."""

ITEM: Mapping[str, Rebuild] = {
    "billing_thresholds": _same,
    "discounts": _discounts,
    "metadata": _same,
    "tax_rates": _ids,
}
"""Of an item, beside its price and quantity."""

ITEM_DERIVED: Mapping[str, str] = {
    "plan": "an older name of the price",
    "price": "its id",
    "price_data": "made a price when it was sent: price names it",
    "quantity": "the item's, or what is wanted",
}

_PHASE = frozenset({*SETTINGS, *RUNNING, *DERIVED})
_ITEM = frozenset({*ITEM, *ITEM_DERIVED})


def running(phase: Object, subscription: Object, items: Sequence[Object], ends: int) -> Object:
    """The phase that is running, until `ends`; `items`: the subscription's, all of them.

    Raises StripeRefused where the phase has what is not known here: it would be lost."""
    unknown = sorted(name for name, value in phase.items() if value and name not in _PHASE)
    for each in phase["items"]:
        unknown += [f"items.{name}" for name, value in sorted(each.items()) if value and name not in _ITEM]
    if unknown:
        raise StripeRefused(f"a phase of the schedule has {', '.join(unknown)}, which this change would lose")
    in_phase = {id_of(each["price"]): each for each in phase["items"]}
    rebuilt = {name: rebuild(phase[name]) for name, rebuild in RUNNING.items() if phase.get(name)}
    if rebuilt.get("trial_end"):
        rebuilt.pop("trial", None)  # the whole of a phase: which is until its end
    elif subscription["status"] == "trialing" and subscription.get("trial_end") and not rebuilt.get("trial"):
        rebuilt["trial_end"] = min(subscription["trial_end"], ends)
    return {
        **_settings(phase, subscription),
        **rebuilt,
        "end_date": ends,
        "items": [item(each, in_phase.get(id_of(each["price"]))) for each in items],
    }


def following(phase: Object, subscription: Object, items: Sequence[Object], interval: str) -> Object:
    """The phase behind it, of one `interval`: other items, all else as it is now."""
    return {
        **_settings(phase, subscription),
        "items": list(items),
        "duration": {"interval": interval, "interval_count": 1},
        "proration_behavior": "none",
    }


def item(subscription_item: Object, in_phase: Object | None = None, **other: Any) -> Object:
    """An item of a subscription as a phase takes it; `other`: in place of its price or quantity."""
    chosen = {"price": id_of(subscription_item["price"]), "quantity": subscription_item.get("quantity"), **other}
    rebuilt = {name: rebuild(_either(name, in_phase or {}, subscription_item)) for name, rebuild in ITEM.items()}
    return _filled({**rebuilt, **chosen})


def _settings(phase: Object, subscription: Object) -> Object:
    rebuilt = {}
    for name, rebuild in SETTINGS.items():
        value = _either(name, phase, _as_a_phase(subscription))
        if value:
            rebuilt[name] = rebuild(value)
    # Empty, a phase would inherit what the customer has.
    return {**rebuilt, "discounts": rebuilt.get("discounts") or ""}


def _either(name: str, phase: Object, current: Object) -> Any:
    """What a phase has, else what its subscription has now; discounts as they are now: some end with an invoice."""
    if name == "discounts" or not phase.get(name):
        return current.get(name) or []
    return phase[name]


def _as_a_phase(subscription: Object) -> Object:
    settings = {**(subscription.get("invoice_settings") or {})}
    if subscription.get("days_until_due") is not None:
        settings["days_until_due"] = subscription["days_until_due"]
    return {**subscription, "invoice_settings": settings}


def _filled(fields: Mapping[str, Any]) -> Object:
    return {name: value for name, value in fields.items() if value not in (None, [], {}, "")}
