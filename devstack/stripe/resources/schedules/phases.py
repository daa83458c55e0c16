"""The phases of a schedule: what a subscription is to be, and from when to when."""

from collections.abc import Sequence

from devstack.stripe.account import Account, Object, RequestRefused, unsupported, unused
from devstack.stripe.resources import subscriptions

DEFAULTS: Object = {
    "application_fee_percent": None,
    "automatic_tax": {"enabled": False},
    "billing_thresholds": None,
    "collection_method": "charge_automatically",
    "default_payment_method": None,
    "default_tax_rates": [],
    "description": None,
    "on_behalf_of": None,
    "transfer_data": None,
}
"""What a subscription has where its phase does not say."""
ITEM_FIELDS = ("billing_thresholds", "discounts", "metadata", "tax_rates")


def phase_at(phases: Sequence[Object], moment: int) -> Object | None:
    return next((phase for phase in phases if phase["start_date"] <= moment < phase["end_date"]), None)


def new_phases(account: Account, subscription: Object, phases_params: Sequence[Object]) -> list[Object]:
    """Raises RequestRefused."""
    phases: list[Object] = []
    for number, params in enumerate(phases_params):
        start = params.get("start_date") or (phases[-1]["end_date"] if phases else None)
        if not isinstance(start, int):
            raise RequestRefused("The first phase needs a start_date.", param="phases[0][start_date]")
        phases.append(new_phase(account, params, start, subscription))
        _check_times(account, subscription, phases[-1], number)
    return phases


def new_phase(account: Account, params: Object, start: int, subscription: Object) -> Object:
    """Raises RequestRefused."""
    items = [_new_item(account, each) for each in params["items"]]
    end = params.get("end_date")
    if end is None:
        end = _end_of_periods(account, subscription, start, items[0]["price"], params.get("duration") or {})
    if params.get("currency", subscription["currency"]) != subscription["currency"]:
        raise RequestRefused("The currency of a subscription cannot be changed.", param="phases")
    trial_end = end if params.get("trial") else params.get("trial_end")
    if trial_end is not None and not start <= trial_end <= end:
        raise RequestRefused("The trial must end within its phase.", param="phases")
    return {
        **{name: params.get(name) for name in DEFAULTS},
        "add_invoice_items": params.get("add_invoice_items") or [],
        "billing_cycle_anchor": params.get("billing_cycle_anchor"),
        "currency": subscription["currency"],
        "discounts": [_new_discount(account, each) for each in params.get("discounts") or []],
        "end_date": end,
        "invoice_settings": params.get("invoice_settings")
        and {
            **unused("account_tax_ids custom_fields days_until_due description footer issuer"),
            **params["invoice_settings"],
        },
        "items": items,
        "metadata": params.get("metadata") or {},
        "proration_behavior": params.get("proration_behavior", "create_prorations"),
        "start_date": start,
        "trial_end": trial_end,
    }


def present_phase(subscription: Object) -> Object:
    """What the subscription is now, as parameters of a phase."""
    items = subscription["items"]["data"]
    return {
        **{name: subscription[name] for name in DEFAULTS},
        "discounts": [{"discount": each} for each in subscription["discounts"]],
        "end_date": items[0]["current_period_end"],
        "items": [
            {
                "price": item["price"]["id"],
                **({"quantity": item["quantity"]} if "quantity" in item else {}),
                **{name: item[name] for name in ITEM_FIELDS},
            }
            for item in items
        ],
        "metadata": dict(subscription["metadata"]),
        "trial_end": subscription["trial_end"] if subscription["status"] == "trialing" else None,
    }


def _new_item(account: Account, params: Object) -> Object:
    price = account.get("price", params["price"])
    licensed = price["recurring"]["usage_type"] == "licensed"
    return {
        "billing_thresholds": params.get("billing_thresholds"),
        "discounts": [_new_discount(account, each) for each in params.get("discounts") or []],
        "metadata": params.get("metadata") or {},
        "plan": price["id"],
        "price": price["id"],
        "tax_rates": params.get("tax_rates") or [],
        **({"quantity": params.get("quantity", 1)} if licensed else {}),
    }


def _new_discount(account: Account, params: Object) -> Object:
    for kind in ("discount", "coupon", "promotion_code"):
        if params.get(kind):
            account.get(kind, params[kind])
    return {"coupon": None, "discount": None, "promotion_code": None, **params}


def _end_of_periods(account: Account, subscription: Object, start: int, price_id: str, duration: Object) -> int:
    price, end = account.get("price", price_id), start
    for _ in range(duration.get("interval_count", 1)):
        end = subscriptions.next_end(subscription, end, price)
    return end


def _check_times(account: Account, subscription: Object, phase: Object, number: int) -> None:
    """Raises RequestRefused for what would be done at another time than it says."""
    end, price = phase["end_date"], account.get("price", phase["items"][0]["price"])
    if subscriptions.next_end(subscription, end - 1, price) != end:
        message = "The stand-in for Stripe supports only phases that end with a period."
        raise unsupported(message, f"phases[{number}][end_date]")
    if phase["trial_end"] is not None and phase["start_date"] > account.clock.now():
        message = "The stand-in for Stripe supports a trial only in a phase that is running already."
        raise unsupported(message, f"phases[{number}][trial_end]")
