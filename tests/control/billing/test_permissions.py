"""A restricted key suffices, with the permissions that docs/stripe.md names, and with no less."""

from pathlib import Path
from typing import Any

import pytest
from httpx import AsyncClient

from control.billing import client
from control.billing.failures import StripeForbidden
from control.billing.overage.revisions import TELL_APART_SECONDS
from control.billing.permissions import REQUIRED_PERMISSIONS
from control.settings.control_plane import Settings
from quota.model import Admitted, Status
from tests import charging
from tests.control.billing.shop import Double, MovingClock, Shop


def granted(lacking: str | None = None) -> list[str]:
    return [f"{each}:{p.access}" for p in REQUIRED_PERMISSIONS if p.name != lacking for each in p.resources]


@pytest.fixture
def lacking(request: pytest.FixtureRequest) -> str | None:
    """The permission that the key lacks."""
    return getattr(request, "param", None)


@pytest.fixture
async def settings(settings: Settings, double: Double, lacking: str | None) -> Settings:
    async with AsyncClient() as dashboard:
        made = await dashboard.post(f"{double.url}/_double/keys", json={"permissions": granted(lacking)})
    stripe = settings.stripe.model_dump() | {"secret_key": made.json()["key"]}
    return Settings.model_validate({**settings.model_dump(), "stripe": stripe})


async def test_a_restricted_key_with_the_permissions_that_are_named_does_all_and_each_of_them_is_needed(
    shop: Shop,
) -> None:
    assert shop.context.billing is not None
    org = await shop.signed_up("growth")
    path = f"/v1/organizations/{org}"
    assert isinstance(await charging.take(shop.context.ledger, org, "r1", {"api_calls": 100_005}), Admitted)
    await shop.context.billing.overage.flush(org)
    assert isinstance(shop.clock, MovingClock)
    shop.clock.move(seconds=TELL_APART_SECONDS + 1)
    assert await shop.context.billing.overage.compare() == 0
    shop.clock.move(seconds=-TELL_APART_SECONDS - 1)
    invoice = next(shop.double.account.find("invoice", status="paid"))
    calls: list[tuple[str, dict[str, Any]]] = [
        (f"{path}/subscription/switch", {"plan": "starter"}),
        (f"{path}/subscription/stay", {}),
        (f"{path}/portal-sessions", {"return_url": "https://vendor.example/"}),
        (f"{path}/credits", {"amount_minor": 100, "currency": "usd", "reason": "for a fault"}),
        (f"{path}/refunds", {"invoice": invoice["id"], "amount_minor": 100, "reason": "for a fault"}),
        ("/v1/coupons", {"id": "half", "percent_off": 50}),
        ("/v1/promotion-codes", {"coupon": "half", "code": "HALF"}),
        ("/api/admin/webhooks/replay", {"since": "2020-01-01T00:00:00Z"}),
    ]
    for where, body in calls:
        response = await shop.post(where, **body)
        assert response.is_success, (where, response.text)
    await shop.page.post(f"{shop.double.url}/_double/disputes", json={"invoice": invoice["id"], "status": "won"})
    await shop.settled()
    assert (await shop.post(f"{path}/subscription/cancel", when="now")).is_success
    assert await shop.enforced(org) is Status.ENDED
    answered = (await shop.page.get(f"{shop.double.url}/_double/calls")).json()["calls"]
    assert [each for each in answered if each["status"] in (401, 403)] == []
    used = {each["permission"] for each in answered}
    # What may be written may be read, so that reading alone is no need where something is written.
    needed = used - {each.replace(":write", ":read") for each in used if each.endswith(":write")}
    assert needed == set(granted())
    assert await shop.incidents() == []


def test_the_readme_names_each_permission() -> None:
    text = (Path(__file__).parents[3] / "docs" / "stripe.md").read_text()
    _, _, section = text.partition("A restricted key (`rk_…`) suffices.")
    write, _, read = section.partition("\n\n")[0].partition("Read:")
    for each in REQUIRED_PERMISSIONS:
        assert each.name in (write if each.access == "write" else read).replace("\n", " ")


@pytest.mark.parametrize("lacking", ["Customer portal"], indirect=True)
async def test_a_request_that_the_key_lacks_a_permission_for_is_told_which(
    settings: Settings, double: Double, lacking: str
) -> None:
    async with client.opened(settings.stripe) as stripe:
        with pytest.raises(StripeForbidden, match="billing_portal/sessions:write"):
            await client.ask(stripe.v1.billing_portal.sessions.create_async({"customer": "cus_1"}))


@pytest.mark.parametrize("lacking", ["Subscriptions"], indirect=True)
async def test_events_that_the_key_lacks_a_permission_for_open_an_incident_and_wait_until_it_has_it(
    shop: Shop, settings: Settings, lacking: str
) -> None:
    org, url = await shop.order("starter")
    await shop.page.post(url, data={"action": "pay"})
    await shop.double.deliveries.flush()
    while not await shop.incidents():
        assert await shop.enforced(org) is Status.NONE
    incident = (await shop.admin.get("/v1/incidents")).json()["incidents"][0]
    assert incident["kind"] == "stripe_key_refused"
    assert "subscriptions:read" in incident["content"]["reason"]
    key = settings.stripe.secret_key.get_secret_value()
    assert key not in str(incident)
    await shop.page.post(f"{shop.double.url}/_double/keys", json={"key": key, "permissions": granted()})
    assert isinstance(shop.clock, MovingClock)
    while await shop.enforced(org) is not Status.ACTIVE:
        shop.clock.move(seconds=30)
        assert shop.context.billing is not None
        shop.context.billing.inbox.wake()
        await shop.settled()
    assert await shop.incidents() == []
