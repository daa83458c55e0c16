"""What an admin laid over an organization's terms, and that it is suspended, holds whatever becomes of what is paid."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from control import schema
from control.billing.client import ask
from devstack import postgres
from quota.model import Status
from tests.control.billing.shop import Shop

CALLS = 777
Gap = Callable[[Shop, str], Awaitable[None]]


def stripe(shop: Shop) -> Any:
    """Stripe's dashboard."""
    assert shop.context.billing is not None
    return shop.context.billing.client.v1


async def put(shop: Shop, org: str, **content: Any) -> None:
    plan = (await shop.entitlement(org)).get("plan")
    body = {"plan": plan, "meters": {"api_calls": CALLS}, **content}
    response = await shop.admin.put(f"/v1/entitlements/{org}", json=body)
    assert response.status_code == 200, response.text


async def lapses_and_is_bought_again(shop: Shop, org: str) -> None:
    await shop.post(f"/v1/organizations/{org}/subscription/cancel", when="now")
    assert await shop.enforced(org) is Status.ENDED
    await shop.signed_up("starter", org=org)


async def lapses_and_another_plan_is_bought(shop: Shop, org: str) -> None:
    await shop.post(f"/v1/organizations/{org}/subscription/cancel")
    await shop.period_over(org)
    assert await shop.enforced(org) is Status.ENDED
    await shop.signed_up("growth", org=org)


async def is_unpaid_and_paid(shop: Shop, org: str) -> None:
    await shop.card(org, "declines")
    await shop.period_over(org)
    await shop.later(days=16)
    assert (await shop.subscription(org))["status"] == "unpaid"
    assert await shop.enforced(org) is Status.ENDED
    await shop.card(org, "good")
    invoice = next(shop.double.account.find("invoice", status="open"))
    await shop.page.post(f"{shop.double.url}/invoice/{invoice['id']}")
    await shop.settled()


async def has_its_customer_deleted_and_comes_back(shop: Shop, org: str) -> None:
    await ask(stripe(shop).customers.delete_async(await shop.customer(org)))
    await shop.settled()
    await shop.signed_up("starter", org=org)


async def is_given_a_plan_by_an_admin_in_between(shop: Shop, org: str) -> None:
    await shop.post(f"/v1/organizations/{org}/subscription/cancel", when="now")
    held = await shop.enforced(org) is Status.ENDED
    assert held
    async with shop.context.db.connection() as connection:
        suspended = await connection.fetchval(
            "SELECT held FROM entitlement_override WHERE org = $1 ORDER BY effective_from DESC LIMIT 1", org
        )
    await put(shop, org, plan="starter", status="suspended" if suspended else "active")
    await shop.signed_up("growth", org=org)


async def switches_up(shop: Shop, org: str) -> None:
    await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="growth")


GAPS: list[Gap] = [
    lapses_and_is_bought_again,
    lapses_and_another_plan_is_bought,
    is_unpaid_and_paid,
    has_its_customer_deleted_and_comes_back,
    is_given_a_plan_by_an_admin_in_between,
    switches_up,
]


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: gap.__name__)
async def test_no_payment_ends_an_admins_suspension_and_no_gap_its_overrides(shop: Shop, gap: Gap) -> None:
    org = await shop.signed_up("starter")
    await put(shop, org, status="suspended")
    assert await shop.enforced(org) is Status.SUSPENDED
    await gap(shop, org)
    assert (await shop.subscription(org))["status"] == "active", "it is paid"
    assert await shop.enforced(org) is Status.SUSPENDED
    assert (await shop.entitlement(org))["meters"][0]["allowance"] == CALLS
    await put(shop, org, status="active")
    entitlement = await shop.entitlement(org)
    assert (entitlement["status"], entitlement["meters"][0]["allowance"]) == ("active", CALLS)


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: gap.__name__)
async def test_overrides_alone_hold_over_every_gap(shop: Shop, gap: Gap) -> None:
    org = await shop.signed_up("starter")
    await put(shop, org)
    await gap(shop, org)
    entitlement = await shop.entitlement(org)
    assert (entitlement["status"], entitlement["meters"][0]["allowance"]) == ("active", CALLS)


async def test_the_end_of_a_trial_ends_no_suspension(shop: Shop) -> None:
    org = await shop.signed_up("growth", trial_days=14)
    await put(shop, org, status="suspended")
    await shop.later(days=14, hours=2)
    assert (await shop.subscription(org))["status"] == "active"
    assert await shop.enforced(org) is Status.SUSPENDED
    await put(shop, org)
    entitlement = await shop.entitlement(org)
    assert (entitlement["status"], entitlement["policy"], entitlement["meters"][0]["allowance"]) == (
        "active",
        "METERED",
        CALLS,
    )


async def test_a_downgrade_by_schedule_ends_no_suspension_also_where_that_came_after_the_schedule(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="starter")
    await put(shop, org, status="suspended")
    await shop.period_over(org)
    entitlement = await shop.entitlement(org)
    assert (entitlement["plan"], entitlement["meters"][0]["allowance"]) == ("starter", CALLS)
    assert await shop.enforced(org) is Status.SUSPENDED


async def test_a_suspension_of_an_organization_that_never_paid_is_not_ended_by_its_first_payment(shop: Shop) -> None:
    org, url = await shop.order("starter")
    await shop.admin.put(f"/v1/organizations/{org}", json={"name": org})
    await put(shop, org, plan="growth", status="suspended")
    await shop.page.post(url, data={"action": "pay"})
    await shop.settled()
    entitlement = await shop.entitlement(org)
    assert (entitlement["plan"], entitlement["meters"][0]["allowance"]) == ("starter", CALLS)
    assert await shop.enforced(org) is Status.SUSPENDED


async def test_who_was_suspended_before_the_first_plan_is_so_when_one_is_paid_for(shop: Shop) -> None:
    org, url = await shop.order("starter")
    await shop.admin.put(f"/v1/organizations/{org}", json={"name": org})
    assert (await shop.admin.post(f"/v1/entitlements/{org}/suspend")).status_code == 200
    await shop.page.post(url, data={"action": "pay"})
    await shop.settled()
    assert await shop.enforced(org) is Status.SUSPENDED
    assert (await shop.admin.post(f"/v1/entitlements/{org}/resume")).json()["status"] == "active"


async def test_ending_an_entitlement_takes_its_overrides_along_and_ends_no_suspension(shop: Shop) -> None:
    org, url = await shop.order("starter")
    await shop.admin.put(f"/v1/organizations/{org}", json={"name": org})
    await put(shop, org, plan="growth", status="suspended")
    assert (await shop.admin.delete(f"/v1/entitlements/{org}")).status_code == 204
    await shop.page.post(url, data={"action": "pay"})
    await shop.settled()
    assert await shop.enforced(org) is Status.SUSPENDED
    assert (await shop.entitlement(org))["meters"][0]["allowance"] == 10_000


def test_what_was_laid_over_terms_before_it_had_a_table_of_its_own_is_carried_over(postgres_server: str) -> None:
    postgres.execute(postgres_server, "CREATE DATABASE of_before")
    dsn = f"{postgres_server.rpartition('/')[0]}/of_before"
    schema.migrate(dsn, revision="0009")
    entitlements = [
        # org, status, allowances, from (days), to (days or NULL), subscription, held
        ("held", "active", {"api_calls": 1}, -9, None, "sub_1", True),
        ("lapsed", "active", {"api_calls": 2}, -9, -5, "sub_2", True),
        ("ended", "active", {"api_calls": 3}, -9, -5, None, False),
        ("unpaying", "suspended", {}, -9, None, None, False),
        ("plain", "active", {}, -9, None, "sub_3", False),
        ("earlier", "active", {"api_calls": 4}, -9, -5, None, False),
        ("earlier", "active", {}, -5, None, None, False),
        ("scheduled", "active", {}, -9, 5, None, False),
        ("scheduled", "suspended", {"api_calls": 5}, 5, None, None, False),
    ]
    plan = "01a20563-d0f0-7b6c-a4e5-e5e1fe8a5fdc"
    rows = ",".join(
        f"(gen_random_uuid(), '{org}', '{plan}', '{status}', '{json.dumps(allowances)}', '{{}}', now(),"
        f" now() + interval '{begins} days', {'NULL' if ends is None else f'''now() + interval '{ends} days' '''},"
        f" {'NULL' if subscription is None else repr(subscription)}, {held})"
        for org, status, allowances, begins, ends, subscription, held in entitlements
    )
    postgres.execute(
        dsn,
        f"""
        INSERT INTO organization SELECT DISTINCT org, org, now() FROM (VALUES
            {",".join(f"('{row[0]}')" for row in entitlements)}) AS o (org);
        INSERT INTO plan VALUES ('{plan}', 'p', 1, 'P', 'HARD_STOP', 'usd', NULL, NULL, NULL, true, true, now());
        INSERT INTO entitlement (id, org, plan_id, status, allowances, overage_max, period_anchor, effective_from,
            effective_to, subscription, held) VALUES {rows};
        """,
    )
    schema.migrate(dsn)
    overrides = postgres.execute(
        dsn,
        "SELECT org, allowances, held, effective_from > now() FROM entitlement_override ORDER BY org, effective_from",
    )
    assert overrides.splitlines() == [
        'held|{"api_calls": 1}|t|f',
        'lapsed|{"api_calls": 2}|t|f',
        "scheduled|{}|f|f",
        'scheduled|{"api_calls": 5}|t|t',
        "unpaying|{}|t|f",
    ]
    assert postgres.execute(dsn, "SELECT count(*) FROM entitlement WHERE status = 'suspended'") == "0"
    postgres.execute(postgres_server, "DROP DATABASE of_before")
