"""All that Stripe is sent fits, however long ids and names are; and the double takes no more than Stripe does."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx import AsyncClient
from hypothesis import given
from hypothesis import strategies as st

from control.api import money
from control.api.billing import CheckoutBody
from control.billing.overage.revisions import IDENTIFIER_MAX, identifier_of
from control.billing.products import EVENT_NAME_PREFIX, product_id, wanted_prices
from control.billing.subscriptions.customer_links import ORG
from control.entitlements.plans import PlanTerms
from control.sql.billing import ListedPlan
from devstack.stripe.account import RequestRefused
from devstack.stripe.parameters import IDEMPOTENCY_KEY_MAX, LENGTHS, METADATA_KEY_MAX, METADATA_VALUE_MAX, checked
from quota.keys import ORG_PATTERN
from quota.model import Admitted, Status
from tests import charging
from tests.control.billing.shop import Double, Shop

ORG_MAX, METER_MAX, PLAN_MAX = 128, 63, 63

orgs = st.from_regex(ORG_PATTERN.replace("$", r"\Z"))
meters = st.from_regex(r"^[a-z][a-z0-9_]{0,62}\Z")


@given(orgs, meters, st.integers(0, 4_000_000_000), st.integers(1, 10**9))
def test_the_name_of_a_revision_fits_and_is_the_same_each_time(org: str, meter: str, start: int, revision: int) -> None:
    name = identifier_of(meter, org, start, revision)
    assert len(name) <= IDENTIFIER_MAX
    assert name == identifier_of(meter, org, start, revision)


def test_no_two_revisions_have_one_name() -> None:
    ids = ["o" * length for length in range(1, ORG_MAX + 1)] + ["o" * (ORG_MAX - 1) + "p"]
    names = {identifier_of("api_calls", org, 1_800_000_000, revision) for org in ids for revision in (1, 2)}
    assert len(names) == 2 * len(ids)
    assert identifier_of("api_calls", "acme", 1_800_000_000, 3) == "api_calls:acme:1800000000:3", "as it always was"


@pytest.mark.parametrize("length", [77, 78, ORG_MAX])
async def test_overage_of_an_organization_is_billed_however_long_its_id_is(shop: Shop, length: int) -> None:
    org = uuid4().hex.ljust(length, "x")
    await shop.signed_up("growth", org=org)
    assert await shop.enforced(org) is Status.ACTIVE
    assert isinstance(await charging.take(shop.context.ledger, org, "r1", {"api_calls": 100_020}), Admitted)
    await shop.period_over(org)
    invoice = next(shop.double.account.find("invoice", billing_reason="subscription_cycle"))
    used = [line["quantity"] for line in invoice["lines"]["data"] if line["description"] == "Usage"]
    assert used == [20]


def test_what_else_is_filled_with_ids_fits_at_its_longest() -> None:
    plan, meter = "p" * PLAN_MAX, "m" * METER_MAX
    row = ListedPlan(
        id=UUID(int=1),
        code=plan,
        version=2**31,
        name="Plan",
        currency="usd",
        policy="METERED",
        price_minor={"month": 10**12, "year": 10**12},
        overage={meter: [10**12, 10**12]},
        prices=[],
    )
    prices = LENGTHS["PriceCreateParams"]
    for wanted in wanted_prices(row):
        assert len(wanted.lookup_key) <= prices["lookup_key"]
        assert len(f"price:{wanted.plan_id}:{wanted.interval}:{wanted.meter or ''}") <= IDEMPOTENCY_KEY_MAX
    assert len(EVENT_NAME_PREFIX + meter) <= LENGTHS["billing.MeterCreateParams"]["event_name"]
    assert len(product_id(plan)) <= LENGTHS["ProductCreateParams"]["id"]
    assert max_length(PlanTerms, "name") <= LENGTHS["ProductCreateParams"]["name"]
    assert LENGTHS["checkout.SessionCreateParams"]["client_reference_id"] >= ORG_MAX
    assert max_length(CheckoutBody, "email") <= LENGTHS["checkout.SessionCreateParams"]["customer_email"]
    for key in (ORG, "quotagate_plan", "quotagate_plan_version", "quotagate_meter"):
        assert len(key) <= METADATA_KEY_MAX
    assert METADATA_VALUE_MAX >= ORG_MAX
    assert max_length(money.CreditBody, "reason") <= LENGTHS["CustomerBalanceTransactionCreateParams"]["description"]
    assert max_length(money.CouponBody, "name") <= LENGTHS["CouponCreateParams"]["name"]


async def test_an_idempotency_key_as_long_as_this_plane_takes_it_reaches_stripe(shop: Shop) -> None:
    body = {"org": "keyed", "plan": "starter", "success_url": "https://vendor.example/"}
    for length, status in ((200, 201), (201, 422)):
        headers = {"idempotency-key": "k" * length}
        response = await shop.admin.post("/v1/checkout-sessions", json=body, headers=headers)
        assert response.status_code == status, response.text


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"event_name": "e", "payload": {}, "identifier": "i" * 101}, "billing.MeterEventCreateParams"),
        ({"client_reference_id": "o" * 201}, "checkout.SessionCreateParams"),
        ({"metadata": {"k" * 41: "v"}}, "CustomerCreateParams"),
        ({"metadata": {"k": "v" * 501}}, "CustomerCreateParams"),
        ({"metadata": {f"k{n}": "v" for n in range(51)}}, "CustomerCreateParams"),
        ({"subscription_data": {"metadata": {"k": "v" * 501}}}, "checkout.SessionCreateParams"),
        ({"currency": "usd", "lookup_key": "l" * 201}, "PriceCreateParams"),
        ({"percent_off": "5", "name": "n" * 41}, "CouponCreateParams"),
    ],
)
def test_the_double_refuses_what_is_longer_than_stripe_takes(params: dict[str, Any], name: str) -> None:
    with pytest.raises(RequestRefused):
        checked(params, name)


async def test_the_double_refuses_an_idempotency_key_that_is_longer_than_stripe_takes(double: Double) -> None:
    async with AsyncClient(base_url=double.url) as client:
        for length, status in ((IDEMPOTENCY_KEY_MAX, 200), (IDEMPOTENCY_KEY_MAX + 1, 400)):
            headers = {"authorization": "Bearer sk_test_x", "idempotency-key": "k" * length}
            assert (await client.post("/v1/customers", headers=headers)).status_code == status


def max_length(model: Any, field: str) -> int:
    """Of a text in a body or a settings part."""
    from annotated_types import MaxLen
    from pydantic.fields import FieldInfo

    info: FieldInfo = model.model_fields[field]
    lengths = [each.max_length for each in info.metadata if isinstance(each, MaxLen)]
    for inner in getattr(info.annotation, "__args__", ()):
        for each in getattr(inner, "__metadata__", ()):
            lengths += [one.max_length for one in getattr(each, "metadata", ()) if isinstance(one, MaxLen)]
    return int(lengths[0])
