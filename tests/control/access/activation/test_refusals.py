"""What is refused, and how little is said of it."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from httpx import AsyncClient
from redis.asyncio import Redis

from control.access.activation import codes
from control.http.context import Context
from quota import keys
from quota.access import Mark, MarkKind
from quota.ledger import LedgerUnavailable
from quota.model import OrganizationSnapshot
from tests.control.access.activation.site import REFUSED, Site, Sites, again, base64url, code_of, listed
from tests.control.access.issuing.rig import published, verified
from tests.control.plane import Entitled, MovedClock


async def snapshot(context: Context, org: str) -> OrganizationSnapshot:
    found = await context.ledger.peek(org)
    assert found is not None
    return found


def without_id(answer: Any) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name != "correlation_id"}


async def test_nothing_tells_whether_a_code_exists(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    used, other_product = await code_of(admin, org), await code_of(admin, org, product="shop")
    expired = await code_of(admin, org, valid_seconds=1)
    revoked = (await admin.post(f"/v1/organizations/{org}/activation-codes", json={})).json()
    await admin.delete(f"/v1/organizations/{org}/activation-codes/{revoked['id']}")
    await sites().activate(used)
    clock.move(seconds=61)
    tried = [codes.generate(), used, expired, revoked["code"], other_product, used[:-1] + "*", "x", used.lower()]
    answers = [await sites().ask_activation(code) for code in tried]
    assert {answer.status_code for answer in answers} == {403}
    assert all(without_id(answer) == without_id(answers[0]) for answer in answers)
    assert answers[0].json()["type"] == REFUSED
    assert {tuple(sorted(answer.headers)) for answer in answers} == {tuple(sorted(answers[0].headers))}
    page = (await admin.get(f"/v1/organizations/{org}/activation-codes")).json()["activation_codes"]
    assert {code["refused_for"]: code["state"] for code in page} == {
        "revoked": "revoked",
        "expired": "expired",
        "other_product": "valid",
        "no_seat": "used_up",
    }


async def test_who_tries_codes_has_to_wait_whether_they_exist_or_not(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    used = await code_of(admin, await entitled())
    await sites().activate(used)
    for code in (used, codes.generate()):
        site = sites()
        statuses = [(await site.ask_activation(code)).status_code for _ in range(12)]
        assert statuses == [403] * 10 + [429] * 2
        from_elsewhere = await sites().ask_activation(code)
        assert (from_elsewhere.status_code, from_elsewhere.headers["retry-after"]) == (429, "6")


async def test_who_tries_refresh_tokens_has_to_wait_and_the_site_goes_on(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    site, stranger = sites(), sites()
    await site.activate(await code_of(admin, await entitled()))
    statuses = [(await stranger.ask_refresh(f"qgr_{'A' * 20}_1_{n:043}_{'A' * 22}")).status_code for n in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    await site.refresh()


async def test_a_code_of_a_product_activates_only_that(admin: AsyncClient, entitled: Entitled, sites: Sites) -> None:
    org = await entitled()
    code, site = await code_of(admin, org, product="shop"), sites()
    assert (await site.ask_activation(code, product="forms")).status_code == 403
    assert (await site.ask_activation(code)).status_code == 403
    await site.activate(code, product="shop")
    assert (await listed(admin, org))[0]["product"] == "shop"


async def test_a_refresh_needs_the_sites_key(admin: AsyncClient, entitled: Entitled, sites: Sites) -> None:
    org = await entitled()
    site, stranger = sites(), sites()
    await site.activate(await code_of(admin, org))
    stranger.tokens = site.tokens
    for domain in (site.domain, stranger.domain, "http://localhost"):
        stranger.domain = domain
        assert again(await stranger.ask_refresh()) == "unknown"
        assert again(await stranger.release()) == "unknown"
    assert again(await site.ask_refresh(proof=site.proof("release", site.refresh_token))) == "unknown"
    await site.refresh()


async def test_a_refresh_from_another_domain_with_a_proof_of_the_first_is_refused(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    site = sites()
    await site.activate(await code_of(admin, await entitled()))
    assert again(await site.ask_refresh(domain="https://evil.example.net")) == "unknown"
    await site.refresh()


async def test_made_up_and_damaged_tokens_are_unknown_and_revoke_nothing(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    site = sites()
    await site.activate(await code_of(admin, await entitled()))
    first = site.refresh_token
    await site.refresh()
    await site.refresh()
    prefix, family, generation, *rest = first.split("_", 3)
    secret, tag = rest[0][:43], rest[0][44:]
    for made_up in (
        "x",
        f"{prefix}_{family}_{generation}_{secret}_{'A' * 22}",
        f"{prefix}_{family}_2_{secret}_{tag}",
        f"{prefix}_{family}_1_{'A' * 43}_{tag}",
        f"{prefix}_{'A' * 20}_{generation}_{secret}_{tag}",
        f"{prefix}_{family}_99_{secret}_{tag}",
    ):
        assert again(await site.ask_refresh(made_up)) == "unknown"
    await site.refresh()


async def test_a_released_site_has_no_tokens_and_its_seat_is_free(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    org = await entitled()
    code, site = await code_of(admin, org, sites=1), sites()
    await site.activate(code)
    for _ in range(2):
        assert (await site.release()).status_code == 204
    assert again(await site.ask_refresh()) == "released"
    await sites().activate(code)


@pytest.mark.parametrize("how", ["release", "revoke", "own release", "reuse"])
async def test_when_the_end_of_a_site_is_answered_its_mark_is_in_redis_and_the_version_has_grown(
    admin: AsyncClient, context: Context, redis: Redis, entitled: Entitled, sites: Sites, how: str
) -> None:
    org = await entitled()
    site = sites()
    await site.activate(await code_of(admin, org))
    first, version = site.refresh_token, (await snapshot(context, org)).version
    if how == "own release":
        assert (await site.release()).status_code == 204
    elif how == "reuse":
        await site.refresh()
        await site.refresh()
        assert again(await site.ask_refresh(first)) == "reused"
    else:
        assert (await admin.post(f"/v1/organizations/{org}/sites/{site.id}/{how}")).status_code == 200
    shards = context.ledger.shards
    assert await redis.hget(keys.access_key(org, shards), Mark(MarkKind.SITE, site.id).field) == b""
    assert (await snapshot(context, org)).version > version


async def test_an_end_that_redis_is_not_told_of_is_stored_and_answered_as_that(
    admin: AsyncClient, context: Context, entitled: Entitled, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(org: str) -> Any:
        raise LedgerUnavailable("Redis is away")

    org = await entitled()
    site = sites()
    await site.activate(await code_of(admin, org))
    monkeypatch.setattr(context.publisher, "install", away)
    path = f"/v1/organizations/{org}/sites/{site.id}/revoke"
    assert (await admin.post(path)).status_code == 503
    assert again(await site.ask_refresh()) == "revoked"
    monkeypatch.undo()
    answer = await admin.post(path)
    assert (answer.status_code, answer.json()["state"]) == (200, "revoked")


async def test_a_key_pair_proves_who_the_site_is(admin: AsyncClient, entitled: Entitled, sites: Sites) -> None:
    class WithKeyPair(Site):
        pair = Ed25519PrivateKey.generate()

        def proof(self, purpose: str, secret: str) -> str:
            return base64url(self.pair.sign(f"quotagate {purpose}\n{secret}\n{self.domain}".encode()))

    site = WithKeyPair(sites.client(), "https://shop.example.com")
    key = f"ed25519:{base64url(site.pair.public_key().public_bytes_raw())}"
    await site.activate(await code_of(admin, await entitled()), site_key=key)
    await site.refresh()
    other = Site(sites.client(), site.domain, tokens=site.tokens)
    assert again(await other.ask_refresh()) == "unknown"


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"site_key": "rsa:AAAA"}, "site_key"),
        ({"domain": "-"}, "domain"),
        ({"domain": "http://[::1"}, "domain"),
        ({"attempt": "short"}, "attempt"),
        ({"unknown": 1}, "unknown"),
        ({"product": "x" * 101}, "product"),
    ],
)
async def test_a_body_of_a_wrong_form_says_which_field(sites: Sites, content: dict[str, Any], field: str) -> None:
    answer = await sites().ask_activation("x", **content)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [f"body.{field}"]


async def test_the_access_token_names_organization_site_kind_and_scopes(
    admin: AsyncClient, nobody: AsyncClient, context: Context, entitled: Entitled, sites: Sites
) -> None:
    org = await entitled()
    live = sites()
    await live.activate(await code_of(admin, org, scopes=["route:export", "reports"], access_seconds=30))
    copy = live.copied_to("http://localhost")
    await copy.refresh()
    for site, kind in ((live, "production"), (copy, "staging")):
        claims = verified(site.tokens["access_token"], await published(nobody), context.host_clock())
        assert (claims["org_id"], claims["site"], claims["roles"]) == (org, site.id, ["site", kind])
        assert claims["scope"] == "route:export reports"
        assert claims["exp"] - claims["iat"] == 30
        assert "sub" not in claims
        assert site.tokens["expires_in"] <= 30
        assert site.tokens["plan"] == "starter"


async def test_no_secret_is_in_the_journal_the_log_the_incidents_or_the_database(
    admin: AsyncClient,
    context: Context,
    entitled: Entitled,
    sites: Sites,
    clock: MovedClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    org = await entitled()
    code, site = await code_of(admin, org), sites("https://shop.example.com")
    secrets = [code, code.replace("-", ""), base64url(site.secret)]
    await site.activate(code)
    for _ in range(2):
        secrets += [site.refresh_token, site.tokens["access_token"], site.refresh_token.split("_", 3)[3][:43]]
        await site.refresh()
    clone = site.copied_to("https://other.example.net")
    await site.refresh()
    await clone.refresh()
    clock.move(hours=1)
    assert again(await site.ask_refresh(secrets[3])) == "reused"
    written = capsys.readouterr().out
    for path in ("/v1/journal", f"/v1/organizations/{org}/journal", "/v1/incidents", f"/v1/organizations/{org}/sites"):
        written += (await admin.get(path, params={"limit": 500})).text
    written += (await admin.get(f"/v1/organizations/{org}/activation-codes")).text
    async with context.db.connection() as connection:
        for table in ("activation_code", "site", "refresh_family", "audit_journal", "incident"):
            written += str(await connection.fetch(f"SELECT t::text FROM {table} t"))
    for secret in secrets:
        assert secret not in written
        assert secret.encode().hex() not in written
