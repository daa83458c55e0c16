"""Whatever is in an event that is well signed: it is filed and dealt with, or answered 400."""

import hashlib
import hmac
import json
from typing import Any
from uuid import uuid4

import pytest
from httpx import ASGITransport, AsyncClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from control.app import build
from tests.control.billing.shop import SECRET, Shop

KNOWN = "a customer of the shop"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)
EVENT_TYPES = st.sampled_from(
    [
        "customer.updated",
        "customer.subscription.updated",
        "customer.subscription.trial_will_end",
        "checkout.session.completed",
        "invoice.created",
        "invoice.payment_failed",
        "subscription_schedule.updated",
        "charge.refunded",
        "charge.dispute.created",
        "refund.created",
        "credit_note.created",
        "price.updated",
        "v1.billing.meter.error_report_triggered",
        "payout.paid",
    ]
)
KINDS = st.sampled_from(["customer", "invoice", "charge", "refund", "dispute", "credit_note", "checkout.session"])
NAMES = st.sampled_from([KNOWN, "cus_nobody", "in_nothing", "ch_nothing", "", "../x", "a b", "x" * 300])
ABOUT = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("object", "id", "customer", "charge", "invoice"), KINDS | NAMES | JSON)
)
DATA = JSON | st.fixed_dictionaries({"object": ABOUT | JSON})
EVENTS = st.fixed_dictionaries(
    {"type": EVENT_TYPES, "livemode": st.just(False)},
    optional={"data": DATA, "created": JSON, "object": JSON, "request": JSON, "pending_webhooks": JSON},
)


@pytest.fixture
async def customer(shop: Shop) -> str:
    org = await shop.signed_up("starter")
    async with shop.context.db.connection() as connection:
        return str(await connection.fetchval("SELECT id FROM stripe_customer WHERE org = $1", org))


@given(event=EVENTS)
@hypothesis_settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
async def test_no_event_behind_a_good_signature_fails_otherwise_than_by_400_and_none_is_tried_in_vain(
    shop: Shop, customer: str, event: dict[str, Any]
) -> None:
    """What these name is not at Stripe, but for one customer."""
    billing, event_id = shop.context.billing, f"evt_fuzz_{uuid4().hex}"
    assert billing is not None
    body = json.dumps({"id": event_id, **event}).replace(KNOWN, customer).encode()
    at = str(int(shop.context.clock()))
    signature = hmac.new(SECRET.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
    transport = ASGITransport(build(shop.context), raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://control") as client:
        headers = {"stripe-signature": f"t={at},v1={signature}"}
        response = await client.post("/api/webhooks/stripe", content=body, headers=headers)
    if response.status_code == 400:
        assert b"NaN" in body or b"Infinity" in body, response.text
        return
    assert response.status_code == 200, response.text
    async with shop.context.db.connection() as connection:
        for _ in range(1000):
            await billing.inbox.settle()
            row = await connection.fetchrow(
                "SELECT outcome, attempts, last_error FROM webhook_event WHERE id = $1", event_id
            )
            if row["outcome"] is not None or row["last_error"] is not None:
                break
        assert (row["outcome"], row["attempts"], row["last_error"]) in (("done", 1, None), ("ignored", 1, None))
