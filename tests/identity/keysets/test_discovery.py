"""An issuer's key set is where its own configuration says, and nobody else's configuration counts."""

import json
from typing import Any

import pytest

from identity.keysets.discovery import configuration_url, key_set_url
from identity.keysets.jwk import KeySetUnavailable
from identity.keysets.keyset import RETRY_SECONDS, KeySet, look, source_of
from identity.settings import IssuerSettings
from tests.identity.keysets.issuing import (
    ACCEPTED,
    CONFIGURATION,
    NEW_KEY,
    OLD_KEY,
    Issuer,
    Time,
    key_set,
    public,
)

ISSUER = "https://issuer.example/tenant"


def discovered(issuer: str) -> IssuerSettings:
    return IssuerSettings(issuer=issuer, algorithms=ACCEPTED, discovery=True)


def configuration(**members: Any) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": "https://keys.example/jwks", **members}).encode()


@pytest.mark.parametrize(
    ("issuer", "url"),
    [
        ("https://a.example", "https://a.example/.well-known/openid-configuration"),
        ("https://a.example/", "https://a.example/.well-known/openid-configuration"),
        (ISSUER, "https://issuer.example/tenant/.well-known/openid-configuration"),
    ],
)
def test_the_configuration_is_below_the_issuer(issuer: str, url: str) -> None:
    assert configuration_url(issuer) == url
    assert source_of(discovered(issuer)) == url


def test_a_key_set_may_be_on_another_host() -> None:
    assert key_set_url(configuration(), ISSUER) == "https://keys.example/jwks"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>", "is not a JSON object"),
        (b"[" * 100_000, "is not a JSON object"),
        (b"[]", "is not a JSON object"),
        (b"{}", "names another issuer"),
        (configuration(issuer=ISSUER + "/"), "names another issuer"),
        (configuration(issuer="https://issuer.example/other"), "names another issuer"),
        (configuration(issuer=[ISSUER]), "names another issuer"),
        (configuration(jwks_uri=None), "names no jwks_uri"),
        (configuration(jwks_uri=["https://keys.example/jwks"]), "names no jwks_uri"),
        (configuration(jwks_uri="keys.example"), "is not a URL"),
        (configuration(jwks_uri="file:///etc/passwd"), "is not a URL"),
        (configuration(jwks_uri="https://[::1/"), "is not a URL"),
        (configuration(jwks_uri="http://keys.example/jwks"), "is not an https URL"),
        (configuration(jwks_uri="https://user:pw@keys.example/jwks"), "is not an https URL"),
        (configuration(jwks_uri="http://127.0.0.1:6379/"), "is not an https URL"),
        (configuration(jwks_uri="https://127.0.0.1/"), "is not an https URL"),
        (configuration(jwks_uri="http://localhost/"), "is not an https URL"),
    ],
)
def test_a_configuration_that_is_not_its_own_or_leads_astray_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(KeySetUnavailable, match=reason):
        key_set_url(body, ISSUER)


async def test_keys_are_read_by_discovery_and_refreshed_with_the_configuration(issuer: Issuer, time: Time) -> None:
    issuer.publishes(public(OLD_KEY, "old"))
    keys = KeySet.of(discovered(issuer.origin), time.clock, time.sleep)
    await keys.start()
    assert keys.find("old")
    assert issuer.paths == [CONFIGURATION, "/keys"]
    # The issuer moves its keys.
    moved = {"issuer": issuer.origin, "jwks_uri": f"{issuer.origin}/moved"}
    issuer.bodies = {CONFIGURATION: json.dumps(moved).encode(), "/moved": key_set(public(NEW_KEY, "new"))}
    time.now = RETRY_SECONDS
    await keys.refresh_if_due()
    assert keys.find("new")
    assert not keys.find("old")
    assert issuer.paths[2:] == [CONFIGURATION, "/moved"]
    await keys.close()


async def test_the_configuration_of_another_issuer_leaves_the_known_keys_in_service(issuer: Issuer, time: Time) -> None:
    issuer.publishes(public(OLD_KEY, "old"))
    keys = KeySet.of(discovered(issuer.origin), time.clock, time.sleep)
    await keys.start()
    issuer.publishes(public(NEW_KEY, "new"), name="https://evil.example")
    assert not await keys.refresh()
    assert keys.find("old")
    assert not keys.find("new")
    assert issuer.paths == [CONFIGURATION, "/keys", CONFIGURATION]
    with pytest.raises(KeySetUnavailable, match="names another issuer"):
        await look(discovered(issuer.origin))
    await keys.close()
