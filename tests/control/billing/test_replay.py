"""Stripe's history once more: what is right stays as it is, and what never arrived is made good."""

import asyncio
import time
from base64 import b64encode
from typing import Any

import pytest

from control.moments import rfc3339
from control.settings.control_plane import Settings
from quota.model import Admitted, Status
from tests import charging
from tests.control.billing.shop import DAY, MovingClock, Shop


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The vendor's system is told, too: by an address where nobody answers."""
    notifications = {
        "url": "http://127.0.0.1:9/",
        "secret": "whsec_" + b64encode(b"secret-of-the-tests-of-32-bytes!").decode(),
    }
    return Settings.model_validate({**settings.model_dump(), "notifications": notifications})


async def everything(shop: Shop) -> dict[str, list[str]]:
    """All that events may change; but for the note that somebody replayed them."""
    queries = {
        "entitlements": "SELECT * FROM entitlement ORDER BY id",
        "subscriptions": "SELECT * FROM subscription ORDER BY id",
        "invoices": "SELECT * FROM invoice_ref ORDER BY id",
        "entries": "SELECT * FROM billing_entry ORDER BY id",
        "overage": "SELECT * FROM overage_window ORDER BY identifier",
        "customers": "SELECT id, org, deleted_at FROM stripe_customer ORDER BY id",
        "publications": "SELECT org, version FROM publication ORDER BY org",
        "notifications": "SELECT id, type, org, body FROM notification ORDER BY id",
        "incidents": "SELECT kind, key FROM incident WHERE closed_at IS NULL ORDER BY id",
        "journal": "SELECT action, after FROM audit_journal WHERE action <> 'webhooks.replayed' ORDER BY id",
    }
    rows_by_table = {}
    async with shop.context.db.connection() as connection:
        for name, query in queries.items():
            rows_by_table[name] = [str(dict(row)) for row in await connection.fetch(query)]
    return rows_by_table


async def history(shop: Shop) -> str:
    """Four weeks of an organization: bought, upgraded, overused, failed, recovered, refunded, and on its way out."""
    org = await shop.signed_up("starter")
    path = f"/v1/organizations/{org}"
    await shop.post(f"{path}/subscription/switch", plan="growth")
    assert isinstance(await charging.take(shop.context.ledger, org, "r1", {"api_calls": 100_500}), Admitted)
    await shop.card(org, "declines")
    await shop.period_over(org)
    assert await shop.enforced(org) is Status.GRACE
    await shop.card(org, "good")
    invoice = next(shop.double.account.find("invoice", status="open"))
    await shop.page.post(f"{shop.double.url}/invoice/{invoice['id']}")
    await shop.settled()
    await shop.post(f"{path}/refunds", invoice=invoice["id"], amount_minor=500, reason="for a fault")
    await shop.page.post(f"{shop.double.url}/_double/disputes", json={"invoice": invoice["id"]})
    await shop.settled()
    await shop.post(f"{path}/subscription/switch", plan="starter")
    await shop.later(days=20)
    return org


async def replay(shop: Shop, **body: Any) -> dict[str, Any]:
    response = await shop.post("/api/admin/webhooks/replay", **body)
    assert response.status_code == 200, response.text
    report: dict[str, Any] = response.json()
    return report


async def test_30_days_replayed_from_stripes_list_from_the_inbox_and_by_id_change_nothing(shop: Shop) -> None:
    org = await history(shop)
    events = list(shop.double.account.find("event"))
    since = rfc3339(shop.double.account.clock.now() - 30 * DAY)
    until = rfc3339(shop.double.account.clock.now() + 1)
    recent = [each for each in events if each["created"] >= shop.double.account.clock.now() - 30 * DAY]
    before = await everything(shop)
    assert before["notifications"], "a payment failed, and a payment is disputed"
    for source in ("stripe", "inbox"):
        report = await replay(shop, since=since, until=until, source=source)
        assert (report["replayed"], report["fetched"]) == (len(recent), 0)
        assert await everything(shop) == before
    ids = [each["id"] for each in events][:1000]
    assert (await replay(shop, events=ids))["replayed"] == len(ids)
    assert await everything(shop) == before
    assert await shop.enforced(org) is Status.ACTIVE


async def test_events_that_were_never_delivered_are_fetched_and_all_is_right(shop: Shop) -> None:
    kept, url = await shop.order("starter")
    lost, lost_url = await shop.order("growth")
    faults = {"webhooks": {"drop": 1.0}}
    await shop.page.post(f"{shop.double.url}/_double/faults", json=faults)
    began = int(time.time())
    await shop.page.post(url, data={"action": "pay"})
    await shop.page.post(lost_url, data={"action": "pay"})
    await shop.settled()
    assert [await shop.enforced(kept), await shop.enforced(lost)] == [Status.NONE, Status.NONE]
    event = next(
        each
        for each in shop.double.account.find("event", type="checkout.session.completed")
        if each["data"]["object"]["client_reference_id"] == kept
    )
    assert await replay(shop, events=[event["id"], "evt_of_nobody"]) == {
        "replayed": 1,
        "fetched": 1,
        "unknown": ["evt_of_nobody"],
    }
    assert [await shop.enforced(kept), await shop.enforced(lost)] == [Status.ACTIVE, Status.NONE]
    report = await replay(shop, since=rfc3339(began), source="inbox")
    assert report["fetched"] == 0
    assert await shop.enforced(lost) is Status.NONE, "the inbox does not have them"
    report = await replay(shop, since=rfc3339(began))
    assert report["fetched"] == len([e for e in shop.double.account.find("event") if e["created"] >= began]) - 1
    assert await shop.enforced(lost) is Status.ACTIVE
    for org in (kept, lost):
        invoices = (await shop.admin.get(f"/v1/organizations/{org}/invoices")).json()["invoices"]
        assert [each["status"] for each in invoices] == ["paid"]
        assert len(await shop.journal(org, "entitlement.subscribed")) == 1


async def test_the_vendor_is_told_of_a_failed_payment_though_the_first_attempt_at_its_event_fails(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    await shop.card(org, "declines")
    await shop.page.post(f"{shop.double.url}/_double/faults", json={"api": {"status": 429, "times": 10_000}})
    ends = (await shop.subscription(org))["items"]["data"][0]["current_period_end"]
    shop.double.account.advance_to(ends + 3700)
    failed = "SELECT 1 FROM webhook_event WHERE type = 'invoice.payment_failed' AND last_error IS NOT NULL"
    query = "SELECT count(*) FROM notification WHERE org = $1 AND type = 'invoice.payment_failed'"
    async with shop.context.db.connection() as connection, asyncio.timeout(60):
        while not await connection.fetchval(failed):  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)
        assert await connection.fetchval(query, org) == 0
        await shop.page.post(f"{shop.double.url}/_double/faults", json={"api": {"times": 0}})
        assert isinstance(shop.clock, MovingClock)
        shop.clock.move(minutes=20)
        await shop.settled()
        assert await connection.fetchval(query, org) == 1
