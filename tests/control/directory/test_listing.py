"""Organizations are searched, filtered and sorted."""

import base64
import json
from uuid import uuid4

import pytest
from httpx import AsyncClient

from control import incidents, sql
from control.directory import listing
from control.directory.summary import NEAR_FRACTION
from control.http.context import Context
from control.moments import moment
from tests.control.access.signin.test_sessions import OWN_PAGE, begun, cookie
from tests.control.directory.conftest import Listed
from tests.control.plane import Entitled, MovedClock
from tests.control.usage import spend, write_all

SORTS = ["id", "name", "created", "used", "mrr", "renewal"]
MONTH = {"period_anchor": "2020-01-01T00:00:00Z"}


async def make(admin: AsyncClient, name: str) -> str:
    org = f"org-{uuid4().hex[:12]}"
    assert (await admin.put(f"/v1/organizations/{org}", json={"name": name})).status_code == 201
    return org


async def test_a_new_organization_is_listed_before_the_directory_has_followed(admin: AsyncClient) -> None:
    org = await make(admin, "new")
    page = (await admin.get("/v1/organizations", params={"limit": 1000})).json()
    assert org in [each["id"] for each in page["organizations"]]


async def test_it_is_found_by_name_id_address_customer_and_key(
    context: Context, admin: AsyncClient, listed: Listed, marker: str
) -> None:
    org = await make(admin, f"Söhne {marker}")
    await make(admin, "another")
    user, customer = f"user_{marker}", f"cus_{marker}"
    await admin.put(f"/v1/users/{user}", json={"email": f"ada@{marker}.example"})
    assert (await admin.put(f"/v1/organizations/{org}/members/{user}", json={"role": "owner"})).status_code < 300
    key = (await admin.post(f"/v1/organizations/{org}/keys", json={"name": "k"})).json()
    async with context.db.connection() as connection:
        await connection.execute(
            "INSERT INTO stripe_customer (id, org, linked_at) VALUES ($1, $2, $3)",
            customer,
            org,
            moment(context.clock()),
        )
    for q in (
        marker,
        f"sohne {marker[:6]}",
        org,
        f"ada@{marker}",
        f"{marker}.exa",
        customer[:8],
        key["starts_with"],
        key["id"],
    ):
        assert await listed(q=q) == [org], q
    assert await listed(q=f"{marker} other") == []


async def test_who_was_renamed_or_deleted_is_found_as_it_is_now(
    admin: AsyncClient, listed: Listed, marker: str
) -> None:
    org = await make(admin, f"Old {marker}")
    assert await listed(q=f"old {marker}") == [org]
    await admin.put(f"/v1/organizations/{org}", json={"name": f"New {marker}"})
    assert await listed(q=f"old {marker}") == []
    assert await listed(q=f"new {marker}") == [org]
    await admin.delete(f"/v1/organizations/{org}")
    assert await listed(q=marker) == []
    assert await listed(q=marker, deleted=True) == [org]


@pytest.mark.parametrize("sort", [sign + word for word in SORTS for sign in ("", "-")])
async def test_pages_in_each_order_hold_each_organization_once(
    context: Context, admin: AsyncClient, listed: Listed, marker: str, sort: str
) -> None:
    made = [await make(admin, f"{marker} {n % 3}") for n in range(7)]
    async with context.db.connection() as connection:
        await context.directory.round()
        await connection.execute(
            "UPDATE organization_summary SET used_fraction = 0.1 * (length(name_key) % 2), mrr_minor = 7, "
            "renews_at = CASE WHEN org < $1 THEN now() ELSE renews_at END WHERE org = ANY($2)",
            sorted(made)[3],
            made,
        )
    small = await listed(limit=2, q=marker, sort=sort)
    assert sorted(small) == sorted(made)
    assert small == await listed(limit=100, q=marker, sort=sort)
    assert small == (await listed(q=marker, sort=sort.removeprefix("-") if sort[0] == "-" else f"-{sort}"))[::-1]


@pytest.mark.parametrize("bounds", [(10, 20), (3, 20), (3, 4)], ids=["looked up", "joined", "walked"])
async def test_a_search_finds_the_same_however_many_match(
    admin: AsyncClient, listed: Listed, marker: str, bounds: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "FOUND_MAX", bounds[0])
    monkeypatch.setattr(listing, "JOINED_MAX", bounds[1])
    made = [await make(admin, f"{marker} {n}") for n in range(7)]
    await make(admin, "another")
    for q in (marker, marker[2:]):
        assert await listed(limit=2, q=q) == sorted(made)
        assert await listed(limit=2, q=q, sort="-name") == made[::-1]
    first = (await admin.get("/v1/organizations", params={"q": marker})).json()
    assert first["count"] == {"found": 7, "more": False}


async def test_what_is_sorted_by_use_continues_where_it_was_though_usage_goes_on(
    context: Context, admin: AsyncClient, listed: Listed, marker: str
) -> None:
    made = sorted([await make(admin, marker) for _ in range(4)])
    await listed(q=marker)
    query: dict[str, str | int] = {"q": marker, "sort": "-used", "limit": 2}
    async with context.db.connection() as connection:
        for n, org in enumerate(made):
            await connection.execute("UPDATE organization_summary SET used_fraction = $2 WHERE org = $1", org, n / 10)
        first = (await admin.get("/v1/organizations", params=query)).json()
        await connection.execute("UPDATE organization_summary SET used_fraction = 0 WHERE org = $1", made[2])
    following = (await admin.get("/v1/organizations", params={**query, "limit": 3, "after": first["next"]})).json()
    assert [each["id"] for each in first["organizations"]] == [made[3], made[2]]
    assert [each["id"] for each in following["organizations"]][:1] == [made[1]]
    assert made[0] in [each["id"] for each in following["organizations"]]


async def test_filters_choose_by_plan_status_use_and_payment(
    context: Context,
    admin: AsyncClient,
    entitled: Entitled,
    new_streams: None,
    listed: Listed,
    marker: str,
) -> None:
    full, quiet, late, suspended = [await entitled("tiny") for _ in range(4)]
    for org in (full, quiet, late, suspended):
        await admin.put(f"/v1/organizations/{org}", json={"name": marker})
    allowance = (await admin.get(f"/v1/entitlements/{full}")).json()["meters"][0]["allowance"]
    await spend(context, full, units=int(allowance * NEAR_FRACTION))
    await spend(context, quiet, units=1)
    await write_all(context)
    await admin.put(f"/v1/entitlements/{late}", json={"plan": "growth"})
    await admin.post(f"/v1/entitlements/{suspended}/suspend")
    async with context.db.transaction() as connection:
        await incidents.open(connection, context.clock(), "payment_failed", f"in_{marker}", late, {})
    both = {"q": marker}
    assert await listed(**both, near_quota=True) == [full]
    assert sorted(await listed(**both, near_quota=False)) == sorted([quiet, late, suspended])
    assert await listed(**both, plan="growth") == [late]
    assert await listed(**both, status="suspended") == [suspended]
    assert await listed(**both, payment_failed=True) == [late]
    assert await listed(**both, payment_failed=True, plan="tiny") == []
    assert (await listed(**both, sort="-used"))[:2] == [full, quiet]
    async with context.db.transaction() as connection:
        await incidents.close(connection, context.clock(), "payment_failed", f"in_{marker}")
    assert await listed(**both, payment_failed=True) == []
    async with context.db.transaction() as connection:
        await sql.organizations.set_shadow(connection, id=quiet, shadow=True)
    assert await listed(**both, shadow=True) == [quiet]
    assert sorted(await listed(**both, shadow=False)) == sorted([full, late, suspended])


async def test_a_row_shows_what_is_used_now_though_the_directory_has_not_followed(
    context: Context, admin: AsyncClient, entitled: Entitled, new_streams: None
) -> None:
    org = await entitled("tiny")
    grant = {"meter": "api_calls", "units": 50, "expires_at": "2099-01-01T00:00:00Z", "reason": "an outage"}
    await admin.post(f"/v1/organizations/{org}/grants", json=grant)
    await spend(context, org, units=20)
    await write_all(context)
    page = (await admin.get("/v1/organizations", params={"limit": 1000})).json()
    [row] = [each for each in page["organizations"] if each["id"] == org]
    [meter] = row["summary"]["meters"]
    assert (meter["used"], meter["allowance"], meter["granted"], meter["remaining"]) == (20, 100, 50, 130)
    assert row["summary"]["used_fraction"] == pytest.approx(20 / 150)
    assert (row["summary"]["plan"], row["summary"]["status"], row["summary"]["mrr_minor"]) == ("tiny", "active", {})


async def test_the_order_by_revenue_says_that_it_converts_no_currency(
    context: Context, admin: AsyncClient, nobody: AsyncClient
) -> None:
    await make(admin, "new")
    secret = await begun(context)
    for sort, said in (("mrr", True), ("-mrr", True), ("name", False)):
        page = await nobody.get("/console/organizations", params={"sort": sort}, headers=cookie(secret) | OWN_PAGE)
        assert page.status_code == 200
        assert ("Nothing is converted" in page.text) == said
    document = (await nobody.get("/openapi.json")).json()
    [sort_of] = [p for p in document["paths"]["/v1/organizations"]["get"]["parameters"] if p["name"] == "sort"]
    assert "nothing is converted" in sort_of["description"]


async def test_the_first_page_says_how_many_match(admin: AsyncClient, listed: Listed, marker: str) -> None:
    for _ in range(3):
        await make(admin, marker)
    await listed(q=marker)
    first = (await admin.get("/v1/organizations", params={"q": marker, "limit": 2})).json()
    assert first["count"] == {"found": 3, "more": False}
    following = (await admin.get("/v1/organizations", params={"q": marker, "limit": 2, "after": first["next"]})).json()
    assert following["count"] is None


def cursor(*content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("sort", "after"),
    [
        ("id", "nobody-has-this-id"),
        ("id", "a\x00b"),
        ("name", "%%%"),
        ("name", cursor("a")),
        ("name", cursor("a\x00", "org-1")),
        ("name", cursor("a", "\ud800")),
        ("used", cursor("a", "org-1")),
        ("used", cursor(10**400, "org-1")),
        ("mrr", cursor(2**63, "org-1")),
        ("created", cursor("2026-01-01", "org-1")),
        ("renewal", cursor("soon", "org-1")),
        ("mrr", cursor(True, "org-1")),
    ],
)
async def test_a_cursor_that_no_page_gave_is_refused(admin: AsyncClient, sort: str, after: str) -> None:
    answer = await admin.get("/v1/organizations", params={"sort": sort, "after": after})
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    "query", [{"plan": "growht"}, {"status": "happy"}, {"sort": "size"}, {"near_quota": "perhaps"}, {"q": "a\x00b"}]
)
async def test_a_filter_that_could_match_nothing_is_refused(
    admin: AsyncClient, catalogue: None, query: dict[str, str]
) -> None:
    assert (await admin.get("/v1/organizations", params=query)).status_code == 422


async def test_when_a_period_is_over_the_directory_follows_by_itself(
    context: Context,
    entitled: Entitled,
    new_streams: None,
    listed: Listed,
    admin: AsyncClient,
    clock: MovedClock,
    marker: str,
) -> None:
    org = await entitled("tiny", period={"unit": "day"})
    await admin.put(f"/v1/organizations/{org}", json={"name": marker})
    await spend(context, org, units=90)
    await write_all(context)
    assert await listed(q=marker, near_quota=True) == [org]
    clock.move(days=1)
    assert await listed(q=marker, near_quota=True) == []
