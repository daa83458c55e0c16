"""What the double takes it honours; of what Stripe takes besides, each parameter is refused by name."""

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NotRequired, Union, get_args, get_origin

import pytest
from httpx import AsyncClient
from stripe._v1_services import V1Services

from devstack.stripe import app
from devstack.stripe.account import RequestRefused
from devstack.stripe.dispatch import ROUTES
from devstack.stripe.honoured import HONOURED, ONLY, bare_path, leaves, refuse_unsupported
from devstack.stripe.parameters import EVERYWHERE, _hints, _resolved
from tests.devstack.stripe.selling import price, subscribed

CLASSES = sorted({each.params for each in ROUTES if each.params is not None})
DEEP = 12


def parameters(hint: Any, at: str = "", depth: int = 0) -> Iterator[str]:
    """Each parameter of the SDK's types, with its path; of those that hold others, these."""
    origin, args = get_origin(hint), get_args(hint)
    if hasattr(hint, "__required_keys__") and depth < DEEP:
        for name, inner in _resolved(hint).items():
            yield from parameters(inner, f"{at}.{name}" if at else name, depth + 1)
    elif origin in (NotRequired, Union, types.UnionType):
        paths = {path for each in args for path in parameters(each, at, depth)}
        yield from sorted(paths - {at} or paths)
    elif origin in (list, Sequence):
        yield from parameters(args[0], at, depth)
    else:
        yield at


def of(name: str) -> list[str]:
    """Those of a class."""
    hints = {field: hint for field, hint in _hints(name).items() if field not in EVERYWHERE}
    return sorted({path for field, hint in hints.items() for path in parameters(hint, field)})


def given(path: str) -> dict[str, Any]:
    """A request in which that one alone is set."""
    value: Any = "x"
    for step in reversed(path.split(".")):
        value = {step: value}
    member: dict[str, Any] = value
    return member


def test_each_call_says_what_it_honours() -> None:
    assert callable(app.build)  # all calls are registered
    assert sorted(HONOURED) == CLASSES
    assert ONLY.keys() <= HONOURED.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_each_parameter_of_the_sdks_types_is_honoured_or_refused_by_its_name(name: str) -> None:
    known, all_of_it = HONOURED[name], of(name)
    for path in all_of_it:
        honoured = any(path == each or path.startswith(f"{each}.") for each in known)
        if honoured:
            continue
        with pytest.raises(RequestRefused, match=r"stand-in for Stripe does not support the parameter") as refused:
            refuse_unsupported(name, given(path))
        assert bare_path(refused.value.param or "") == path
    for each in known:
        assert any(path == each or path.startswith(f"{each}.") for path in all_of_it), f"{each} is none of Stripe's"
    for path, values in ONLY.get(name, {}).items():
        assert path in known
        for value in values:
            refuse_unsupported(name, {path.split(".")[0]: _set(path, value)})
        with pytest.raises(RequestRefused):
            refuse_unsupported(name, {path.split(".")[0]: _set(path, "another")})


def _set(path: str, value: Any) -> Any:
    for step in reversed(path.split(".")[1:]):
        value = {step: value}
    return value


def test_what_is_unset_asks_for_nothing_and_lists_are_looked_through() -> None:
    refuse_unsupported("SubscriptionUpdateParams", {"default_tax_rates": [], "transfer_data": ""})
    asked = dict(leaves({"items": [{"price": "p"}, {"tax_rates": ["t"]}]}, HONOURED["SubscriptionUpdateParams"]))
    assert asked == {"items[0][price]": "p", "items[1][tax_rates][0]": "t"}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"backdate_start_date": "1700000000"}, "backdate_start_date"),
        ({"default_tax_rates[0]": "txr_1"}, "default_tax_rates[0]"),
        ({"items[0][tax_rates][0]": "txr_1"}, "items[0][tax_rates][0]"),
        ({"items[0][discounts][0][coupon]": "half"}, "items[0][discounts][0][coupon]"),
        ({"add_invoice_items[0][price]": "price_1"}, "add_invoice_items[0][price]"),
        ({"billing_thresholds[amount_gte]": "100"}, "billing_thresholds[amount_gte]"),
        ({"payment_behavior": "pending_if_incomplete"}, "payment_behavior"),
        ({"proration_behavior": "always_invoice"}, "proration_behavior"),
        ({"transfer_data[destination]": "acct_1"}, "transfer_data[destination]"),
    ],
)
async def test_a_subscription_is_not_begun_with_what_the_double_would_ignore(
    client: V1Services, raw: AsyncClient, more: Mapping[str, str], param: str
) -> None:
    customer = (await client.customers.create_async({"payment_method": "pm_card_visa"})).id
    form = {"customer": customer, "items[0][price]": await price(client), **more}
    response = await raw.post("/v1/subscriptions", data=form)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert "stand-in for Stripe" in error["message"]
    assert (await client.subscriptions.list_async({"status": "all"})).data == []


async def test_calls_that_take_nothing_refuse_whatever_comes(client: V1Services, raw: AsyncClient) -> None:
    subscription = await subscribed(client, await price(client))
    response = await raw.request("DELETE", f"/v1/customers/{subscription.customer}", params={"at": "once"})
    assert response.json()["error"]["param"] == "at"
    assert (await raw.get(f"/v1/customers/{subscription.customer}")).json()["id"] == subscription.customer
