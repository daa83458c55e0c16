"""Many at once: one wins, and nobody loses what they have."""

import asyncio

from httpx import AsyncClient

from tests.control.access.activation.site import Site, Sites, again, code_of, listed
from tests.control.plane import Entitled


async def test_a_hundred_parallel_activations_of_one_code_let_one_site_win(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    org = await entitled()
    code = await code_of(admin, org, sites=1)
    answers = await asyncio.gather(*(sites().ask_activation(code) for _ in range(100)))
    assert {answer.status_code for answer in answers} <= {201, 403, 429}  # 429: so many tries at one code are slowed
    assert [answer.status_code for answer in answers].count(201) == 1
    assert len(await listed(admin, org, None)) == 1


async def test_a_hundred_parallel_activations_at_one_domain_with_keys_of_their_own_let_one_win(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    org = await entitled()
    code = await code_of(admin, org, sites=1)
    rivals = [sites("https://shop.example.com") for _ in range(100)]
    answers = await asyncio.gather(*(rival.ask_activation(code) for rival in rivals))
    assert [answer.status_code for answer in answers].count(201) == 1


async def test_a_hundred_parallel_activations_of_one_site_get_the_same_tokens(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    org = await entitled()
    code, site = await code_of(admin, org, sites=1), sites()
    answers = await asyncio.gather(*(site.ask_activation(code) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert len(await listed(admin, org, None)) == 1


async def test_a_code_for_five_sites_activates_exactly_five_of_a_hundred(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    org = await entitled()
    code = await code_of(admin, org, sites=5)
    answers = await asyncio.gather(*(sites().ask_activation(code) for _ in range(100)))
    assert [answer.status_code for answer in answers].count(201) == 5
    assert len(await listed(admin, org)) == 5


async def test_a_hundred_parallel_activations_of_a_plan_make_one_organization(
    admin: AsyncClient, catalogue: None, sites: Sites
) -> None:
    made = (await admin.post("/v1/activation-codes", json={"plan": "starter"})).json()
    answers = await asyncio.gather(*(sites().ask_activation(made["code"]) for _ in range(100)))
    [winner] = [answer.json() for answer in answers if answer.status_code == 201]
    assert (winner["organization"], winner["plan"]) == (made["organization"], "starter")
    entitlement = (await admin.get(f"/v1/entitlements/{made['organization']}")).json()
    assert entitlement["plan"] == "starter"
    journal = (await admin.get(f"/v1/organizations/{made['organization']}/journal")).json()["entries"]
    assert [entry["action"] for entry in journal].count("entitlement.set") == 1


async def test_fifty_parallel_refreshes_of_one_token_make_one_successor(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    site = sites()
    await site.activate(await code_of(admin, await entitled()))
    answers = await asyncio.gather(*(site.ask_refresh() for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    [successor] = {answer.json()["refresh_token"] for answer in answers}
    assert successor.split("_")[2] == "2"
    assert (await site.ask_refresh(successor)).status_code == 200


async def test_parallel_refreshes_of_a_site_and_its_copies_leave_one_production_site(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    org = await entitled()
    site = sites("https://shop.example.com")
    await site.activate(await code_of(admin, org, sites=1))
    copies: list[Site] = [site.copied_to(f"https://{name}.example.net") for name in ("one", "two", "three")]
    copies += [site.copied_to("http://localhost"), site.copied_to("https://staging.example.com")]
    for _ in range(3):
        answers = await asyncio.gather(*(each.ask_refresh() for each in (site, *copies) for _ in range(4)))
        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
    found = await listed(admin, org)
    assert [each["kind"] for each in found].count("production") == 1
    assert len(found) == 6


async def test_a_refresh_and_a_revocation_at_once_end_with_no_token_that_works(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    org = await entitled()
    site = sites()
    await site.activate(await code_of(admin, org))
    revoked, *answers = await asyncio.gather(
        admin.post(f"/v1/organizations/{org}/sites/{site.id}/revoke"), *(site.ask_refresh() for _ in range(20))
    )
    assert revoked.status_code == 200
    tokens = {answer.json()["refresh_token"] for answer in answers if answer.status_code == 200}
    for token in {*tokens, site.refresh_token}:
        assert again(await site.ask_refresh(token)) == "revoked"
