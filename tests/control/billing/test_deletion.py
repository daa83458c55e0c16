"""An organization that pays is not deleted, and one that was deleted sells nothing."""

from tests.control.billing.shop import Shop


async def test_an_organization_with_a_subscription_is_deleted_when_that_has_ended(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    path = f"/v1/organizations/{org}"
    refused = await shop.admin.delete(path)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:quotagate:problem:conflict")
    assert (await shop.admin.get(path)).json()["deleted_at"] is None
    await shop.post(f"{path}/subscription/cancel", when="now")
    assert (await shop.admin.delete(path)).status_code == 204
    assert (await shop.admin.get(f"{path}/invoices")).status_code == 404
    order = {"org": org, "plan": "starter", "success_url": "https://example.com/done"}
    again = await shop.admin.post("/v1/checkout-sessions", json=order)
    assert (again.status_code, "restore it first" in again.json()["detail"]) == (409, True)
    assert (await shop.admin.post(f"{path}/restore")).status_code == 200
    assert len((await shop.admin.get(f"{path}/invoices")).json()["invoices"]) >= 1, "what it paid is still known"
