"""Several issuers side by side: each token is judged by what is said of the issuer that it names, and nothing else."""

import time as wall
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from identity.issuers import Issuers
from identity.keysets.keyset import RETRY_SECONDS
from identity.refusals import KeyRefreshDue, Reason, TokenRefused
from identity.settings import Auth
from identity.tokens import TokenVerifier
from tests.identity.keysets.issuing import NEW_KEY, NOW, OLD_KEY, RSA_KEY, Issuer, Time, public, verified

SECRET = "a-secret-of-at-least-32-bytes-for-tests"
OWN = {"issuer": "own", "algorithms": ("HS256",), "secret": SECRET, "leeway_seconds": 0}


@pytest.fixture
def servers() -> Iterator[tuple[Issuer, Issuer]]:
    with ExitStack() as stack:
        both = Issuer(), Issuer()
        for server, key in zip(both, (OLD_KEY, RSA_KEY), strict=True):
            stack.callback(server.close)
            server.publishes(public(key, "k"))
        yield both


def of(server: Issuer, algorithm: str, **changes: Any) -> dict[str, Any]:
    return {"issuer": server.origin, "discovery": True, "algorithms": (algorithm,), **changes}


def signed(issuer: str, key: Any, algorithm: str, kid: str | None = "k", **changes: Any) -> bytes:
    claims = {"iss": issuer, "exp": NOW + 3600, "org_id": "acme", **changes}
    return jwt.encode(claims, key, algorithm, headers=None if kid is None else {"kid": kid}).encode()


async def started(time: Time, *issuers: dict[str, Any]) -> tuple[TokenVerifier, Issuers]:
    settings = Auth.model_validate({"issuers": issuers})
    both = Issuers(settings, time.clock, time.sleep)
    await both.start()
    return TokenVerifier(settings, both.key_sets, lambda: NOW), both


async def test_each_issuer_has_its_own_keys_algorithms_audiences_and_claims(servers: tuple[Issuer, Issuer]) -> None:
    a, b = servers
    verifier, issuers = await started(
        Time(),
        of(a, "ES256", audience="api", org_claim="o.id", roles_claim="o.rol"),
        of(b, "RS256", leeway_seconds=60, user_claim="uid", scopes_claim="permissions"),
        OWN,
    )
    of_a = verifier.verify(signed(a.origin, OLD_KEY, "ES256", aud="api", o={"id": "a-org", "rol": "admin"}, sub="u1"))
    assert (of_a.org, of_a.user, of_a.roles, of_a.issuer) == ("a-org", "u1", frozenset({"admin"}), a.origin)
    of_b = verifier.verify(signed(b.origin, RSA_KEY, "RS256", uid=7, permissions=["x"], exp=NOW - 59, jti="j", sid="s"))
    assert (of_b.org, of_b.user, of_b.scopes, of_b.token_id, of_b.session) == ("acme", "7", frozenset("x"), "j", "s")
    own = verifier.verify(signed("own", SECRET, "HS256", None, site="example.com", iat=NOW - 1))
    assert (own.org, own.site, own.issued_at) == ("acme", "example.com", NOW - 1)
    refused = {
        "the algorithm of another": (signed(a.origin, RSA_KEY, "RS256", aud="api"), Reason.WRONG_ALGORITHM),
        "the secret of another": (signed(b.origin, SECRET, "HS256"), Reason.WRONG_ALGORITHM),
        "the audience of another": (signed(b.origin, RSA_KEY, "RS256", aud="api"), Reason.WRONG_AUDIENCE),
        "the organization claim of another": (signed(a.origin, OLD_KEY, "ES256", aud="api"), Reason.NO_ORGANIZATION),
        "the leeway of another": (signed("own", SECRET, "HS256", None, exp=NOW - 1), Reason.EXPIRED),
        "nobody": (signed("evil", SECRET, "HS256", None), Reason.WRONG_ISSUER),
    }
    assert {name: verified(verifier, token) for name, (token, _) in refused.items()} == {
        name: reason for name, (_, reason) in refused.items()
    }
    await issuers.close()


async def test_a_token_of_one_issuer_signed_by_the_key_of_another_is_refused(servers: tuple[Issuer, Issuer]) -> None:
    a, b = servers
    b.publishes(public(NEW_KEY, "k"))
    verifier, issuers = await started(Time(), of(a, "ES256"), of(b, "ES256"))
    assert verified(verifier, signed(a.origin, OLD_KEY, "ES256")) == "acme"
    assert verified(verifier, signed(b.origin, NEW_KEY, "ES256")) == "acme"
    for kid in ("k", None):
        assert verified(verifier, signed(a.origin, NEW_KEY, "ES256", kid)) == Reason.BAD_SIGNATURE
        assert verified(verifier, signed(b.origin, OLD_KEY, "ES256", kid)) == Reason.BAD_SIGNATURE
    await issuers.close()


async def test_ten_thousand_random_key_ids_cause_one_fetch_of_their_issuer_and_none_of_the_others(
    servers: tuple[Issuer, Issuer],
) -> None:
    a, b = servers
    time = Time()
    verifier, issuers = await started(time, of(a, "ES256"), of(b, "RS256"))
    assert (a.asked, b.asked) == (2, 2), "configuration and keys, of each"
    time.now = 100.0
    forged = signed(a.origin, OLD_KEY, "ES256", "random-number").partition(b".")[2]
    for number in range(10_000):
        header = jwt.utils.base64url_encode(b'{"alg":"ES256","kid":"random-%d"}' % number)
        with pytest.raises(TokenRefused) as refused:
            verifier.verify(header + b"." + forged)
        assert refused.value.reason == Reason.UNKNOWN_KEY
        if isinstance(refused.value, KeyRefreshDue):
            await issuers.refresh_if_due(refused.value.issuer)
    assert (a.asked, b.asked) == (4, 2)
    time.now = 100.0 + RETRY_SECONDS
    with pytest.raises(KeyRefreshDue) as due:
        verifier.verify(header + b"." + forged)
    assert due.value.issuer == a.origin
    await issuers.close()


async def test_tokens_of_unknown_issuers_cause_no_fetch(servers: tuple[Issuer, Issuer]) -> None:
    time = Time()
    verifier, issuers = await started(time, of(servers[0], "ES256"))
    time.now = 100.0
    for name in (servers[1].origin, servers[0].origin + "/", f"{servers[0].origin}/evil", ""):
        with pytest.raises(TokenRefused) as refused:
            verifier.verify(signed(name, OLD_KEY, "ES256", "random"))
        assert refused.value.reason == Reason.WRONG_ISSUER
        assert not isinstance(refused.value, KeyRefreshDue)
    assert servers[0].asked == 2
    assert not servers[1].asked
    await issuers.close()


@pytest.mark.parametrize("kid", ["k", None])
async def test_a_key_that_is_replaced_under_the_same_kid_or_none_is_found_and_drops_its_tokens_and_no_others(
    servers: tuple[Issuer, Issuer], kid: str | None
) -> None:
    a, b = servers
    a.publishes(public(OLD_KEY, kid))
    time = Time()
    verifier, issuers = await started(time, of(a, "ES256"), of(b, "RS256"))
    old, new = signed(a.origin, OLD_KEY, "ES256", kid), signed(a.origin, NEW_KEY, "ES256", kid)
    other = signed(b.origin, RSA_KEY, "RS256")
    remembered = verifier.verify(other)
    assert verified(verifier, old) == "acme"
    a.publishes(public(NEW_KEY, kid))
    time.now = 100.0
    with pytest.raises(KeyRefreshDue) as due:
        verifier.verify(new)
    await issuers.refresh_if_due(due.value.issuer)
    assert (verified(verifier, new), verified(verifier, old)) == ("acme", Reason.BAD_SIGNATURE)
    assert verifier.verify(other) is remembered
    await issuers.close()


async def test_two_issuers_that_publish_the_same_key_lose_it_each_for_itself(servers: tuple[Issuer, Issuer]) -> None:
    a, b = servers
    b.publishes(public(OLD_KEY, "k"))
    verifier, issuers = await started(Time(), of(a, "ES256"), of(b, "ES256"))
    token = signed(b.origin, OLD_KEY, "ES256")
    kept = verifier.verify(token)
    verifier.verify(signed(a.origin, OLD_KEY, "ES256"))
    a.publishes(public(NEW_KEY, "other"))
    assert await issuers.key_sets[a.origin].refresh()
    assert verified(verifier, signed(a.origin, OLD_KEY, "ES256")) == Reason.UNKNOWN_KEY
    assert verifier.verify(token) is kept
    await issuers.close()


async def test_an_issuer_that_is_away_does_not_turn_tokens_of_the_others_away(servers: tuple[Issuer, Issuer]) -> None:
    a, b = servers
    a.status = 503
    verifier, issuers = await started(Time(), of(a, "ES256"), of(b, "RS256"))
    assert issuers.usable
    assert verified(verifier, signed(b.origin, RSA_KEY, "RS256")) == "acme"
    assert verified(verifier, signed(a.origin, OLD_KEY, "ES256")) == Reason.NO_KEYS, "it may be good: 503"
    b.status = 503
    _, none = await started(Time(), of(a, "ES256"), of(b, "RS256"))
    assert not none.usable
    for each in (issuers, none):
        await each.close()


async def test_where_only_api_keys_are_accepted_no_token_is() -> None:
    settings = Auth.model_validate({"keys": {}})
    issuers = Issuers(settings)
    assert issuers.usable
    assert not issuers.keys_change
    verifier = TokenVerifier(settings, issuers.key_sets, wall.time)
    key = ec.generate_private_key(ec.SECP256R1())
    assert verified(verifier, signed("a", key, "ES256", exp=wall.time() + 60)) == Reason.WRONG_ISSUER


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("jti", None),
        ("jti", True),
        ("jti", ["a"]),
        ("jti", "a\n"),
        ("sid", {}),
        ("sid", 1.5),
        ("uid", None),
        ("uid", []),
    ],
)
def test_what_access_may_be_withdrawn_by_is_a_text_or_the_token_is_refused(claim: str, value: Any) -> None:
    settings = Auth.model_validate({"issuers": ({**OWN, "user_claim": "uid"},)})
    verifier = TokenVerifier(settings, Issuers(settings).key_sets, lambda: NOW)
    assert verified(verifier, signed("own", SECRET, "HS256", None, **{claim: value})) == Reason.MALFORMED
    assert verified(verifier, signed("own", SECRET, "HS256", None)) == "acme"
