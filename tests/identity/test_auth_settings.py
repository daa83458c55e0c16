"""The block `auth`: one issuer or several, and what cannot be meant."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.settings_file import SettingsError, parse
from common.settings_schema import json_schema
from gateway.settings.root import GatewaySettings
from identity.settings import Auth

SECRET = "a secret of the tests, 32 bytes and more"
HMAC = {"issuer": "a", "algorithms": ["HS256"], "secret": SECRET}
CLERK = {"issuer": "https://app.clerk.accounts.dev", "discovery": True, "algorithms": ["RS256"], "org_claim": "o.id"}
AUTH0 = {"issuer": "https://tenant.eu.auth0.com/", "discovery": True, "algorithms": ["RS256"], "audience": "api"}


def read(auth: Any) -> Auth:
    settings = {
        "redis": {"url": "redis://127.0.0.1:1"},
        "auth": auth,
        "upstreams": {"api": {"url": "http://127.0.0.1:1"}},
        "routes": [{"path": "/", "upstream": "api"}],
    }
    return parse("gateway.yaml", json.dumps(settings), GatewaySettings, {}).auth


def fault(auth: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        read(auth)
    return str(refused.value)


def test_one_issuer_may_be_written_without_a_list() -> None:
    [only] = read({**HMAC, "leeway_seconds": 7}).trusted
    assert (only.issuer, only.algorithms, only.leeway_seconds) == ("a", ("HS256",), 7)
    assert only.secret is not None
    assert only.secret.get_secret_value() == SECRET
    assert read({"issuers": [{**HMAC, "leeway_seconds": 7}]}).trusted == (only,)


def test_several_issuers_each_have_their_own_rules() -> None:
    clerk, auth0, own = read({"issuers": [CLERK, AUTH0, HMAC]}).trusted
    assert [each.org_claim for each in (clerk, auth0, own)] == ["o.id", "org_id", "org_id"]
    assert [each.audience for each in (clerk, auth0, own)] == [None, "api", None]


def test_the_examples_of_the_packaged_settings_are_valid() -> None:
    text = (Path(__file__).parents[2] / "config" / "gateway.yaml").read_text()
    example = text.partition("  # issuers:\n")[2].partition("  issuers: []")[0]
    block = "issuers:\n" + "".join(line.replace("  # ", "  ", 1) + "\n" for line in example.splitlines())
    clerk, auth0, keycloak = read(yaml.safe_load(block)).trusted
    assert (clerk.org_claim, clerk.roles_claim) == ("o.id", "o.rol")
    assert auth0.scopes_claim == "permissions"
    assert keycloak.algorithms == ("RS256", "ES256")


def test_api_keys_need_no_issuer() -> None:
    assert read({"keys": {}}).trusted == ()
    assert "auth.keys.enabled: without keys and without issuers nobody could call" in fault(
        {"keys": {"enabled": False}}
    )


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ({}, "auth.issuer: is missing"),
        ({}, "auth.algorithms: is missing"),
        ({"issuer": "a"}, "auth.algorithms: is missing"),
        ({"algorithms": ["HS256"], "secret": SECRET}, "auth.issuer: is missing"),
        ({**HMAC, "issuers": [CLERK]}, "auth.issuer: belongs to one issuer: move it into the list `issuers`"),
        ({"audience": "api", "issuers": [CLERK]}, "auth.audience: belongs to one issuer"),
        ({"issuers": [CLERK, HMAC, CLERK]}, "auth.issuers[2].issuer: is that of issuers[0], too"),
        ({"issuers": [{"issuer": "a", "algorithms": ["RS256"]}]}, "auth.issuers[0].jwks: is missing: RS256 needs it"),
        ({"issuers": [CLERK, {"issuer": "b"}]}, "auth.issuers[1].algorithms: is missing"),
        ({"issuers": [{"algorithms": ["RS256"], "discovery": True}]}, "auth.issuers[0].issuer: is missing"),
        ({"issuers": [{**CLERK, "secret": SECRET}]}, "auth.issuers[0].secret: cannot be used with RS256"),
        ({"issuers": [{**CLERK, "jwks": "https://a.example/k"}]}, "auth.issuers[0].jwks: is read by discovery"),
        ({"issuers": [{**HMAC, "discovery": True}]}, "auth.issuers[0].discovery: cannot be used with HS256"),
        ({"issuers": [{**CLERK, "issuer": "clerk"}]}, "auth.issuers[0].issuer: must be an https URL without query"),
        ({"issuers": [{**CLERK, "issuer": "http://a.example"}]}, "auth.issuers[0].issuer: must be an https URL"),
        ({"issuers": [{**CLERK, "issuer": "https://u:p@a.example"}]}, "auth.issuers[0].issuer: must be an https URL"),
        ({"issuers": [{**CLERK, "issuer": "https://a.example/?a=1"}]}, "auth.issuers[0].issuer: must be an https URL"),
        ({"issuers": [{**CLERK, "algorithm": "RS256"}]}, "auth.issuers[0].algorithm: unknown field (did you mean algo"),
        ({**HMAC, "keys": {"prefix": "QG"}}, "auth.keys.prefix: "),
        ({**HMAC, "keys": {"prefix": "qg_"}}, "auth.keys.prefix: "),
        ({**HMAC, "keys": {"environments": []}}, "auth.keys.environments: "),
        ({**HMAC, "keys": {"environments": ["live_eu"]}}, "auth.keys.environments[0]: "),
    ],
)
def test_what_cannot_be_meant_is_named_with_its_field(auth: dict[str, Any], message: str) -> None:
    assert message in fault(auth)


def test_an_issuer_on_this_machine_may_be_found_by_discovery_over_http() -> None:
    assert read({"issuers": [{**CLERK, "issuer": "http://127.0.0.1:8081"}]}).trusted[0].discovery


def test_a_secret_of_any_form_is_not_shown() -> None:
    for auth in (read(HMAC), read({"issuers": [HMAC]})):
        assert SECRET not in repr(auth) + repr(auth.trusted) + str(auth.model_dump())


def test_editors_are_told_of_both_forms() -> None:
    schema = json_schema(Auth)
    of_one = schema["$defs"]["IssuerSettings"]
    assert set(of_one["required"]) == {"issuer", "algorithms"}
    assert "required" not in schema
    assert set(of_one["properties"]) < set(schema["properties"])
    assert all("description" in each for each in of_one["properties"].values())
