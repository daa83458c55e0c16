"""Routes that not every token of an organization may use: all of the scopes, any of the roles."""

from typing import Any

import pytest

from identity.claims import Claims
from identity.refusals import Reason
from identity.requirements import Requirement
from tests.identity.minting import NOW, bearer, payload, token, verifier

WRITES = Requirement("reports", ["reports:read", "reports:write"], ())
ADMINS = Requirement("admin", (), ["admin", "owner"])
BOTH = Requirement("both", ["reports:read"], ["admin"])


def who(**changes: Any) -> Claims:
    return verifier().verify_field(bearer(token({**payload(), **changes})))


def reason(required: Requirement, claims: Claims, *key_scopes: str) -> Reason | None:
    refused = required.refusal(claims, key_scopes)
    assert refused is None or refused.forbidden
    return None if refused is None else refused.reason


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, Reason.INSUFFICIENT_SCOPE),
        ({"scope": ""}, Reason.INSUFFICIENT_SCOPE),
        ({"scope": "reports:read"}, Reason.INSUFFICIENT_SCOPE),
        ({"scope": "reports:read,reports:write"}, Reason.INSUFFICIENT_SCOPE),
        ({"scope": "Reports:read Reports:write"}, Reason.INSUFFICIENT_SCOPE),
        ({"scope": None, "scp": "reports:read reports:write"}, Reason.INSUFFICIENT_SCOPE),
        ({"scope": {"reports:read": 1, "reports:write": 1}}, Reason.INSUFFICIENT_SCOPE),
        ({"scope": [["reports:read", "reports:write"]]}, Reason.INSUFFICIENT_SCOPE),
        ({"scope": "openid reports:write reports:read"}, None),
        ({"scope": ["reports:write", "reports:read", 1]}, None),
        ({"scp": ["reports:write", "reports:read"]}, None),
        ({"scp": "reports:write reports:read"}, None),
    ],
)
def test_a_token_must_have_each_scope(changes: dict[str, Any], refused: Reason | None) -> None:
    assert reason(WRITES, who(**changes)) == refused


@pytest.mark.parametrize(
    ("roles", "refused"),
    [
        (None, Reason.INSUFFICIENT_ROLE),
        ([], Reason.INSUFFICIENT_ROLE),
        ("member", Reason.INSUFFICIENT_ROLE),
        ("admin owner", Reason.INSUFFICIENT_ROLE),
        ({"admin": True}, Reason.INSUFFICIENT_ROLE),
        (True, Reason.INSUFFICIENT_ROLE),
        ("admin", None),
        (["member", "owner"], None),
    ],
)
def test_a_token_must_have_one_of_the_roles(roles: Any, refused: Reason | None) -> None:
    assert reason(ADMINS, who(roles=roles)) == refused


def test_where_both_are_asked_for_both_are_needed() -> None:
    assert reason(BOTH, who(scope="reports:read")) == Reason.INSUFFICIENT_ROLE
    assert reason(BOTH, who(roles=["admin"])) == Reason.INSUFFICIENT_SCOPE
    assert reason(BOTH, who(roles=["admin"], scope="reports:read")) is None


def test_a_challenge_names_the_scopes_that_are_needed() -> None:
    refused = WRITES.refusal(who(scope="other"))
    assert refused is not None
    assert refused.challenge == (
        b'Bearer realm="quotagate", error="insufficient_scope", '
        b'error_description="the token lacks a scope that this request needs", scope="reports:read reports:write"'
    )
    role = ADMINS.refusal(who())
    assert role is not None
    assert b'error="insufficient_scope"' in role.challenge
    assert b"scope=" not in role.challenge.replace(b"insufficient_scope", b"")


def test_an_api_key_must_be_let_in_and_made_for_the_route() -> None:
    key = Claims("acme", None, NOW + 1, "", api_key=b"k" * 16)
    open_to_keys = Requirement("reports", ["reports:read"], ["admin"], keys=True)
    assert reason(open_to_keys, key) == Reason.KEY_SCOPE, "no scopes: everything else, but no such route"
    assert reason(open_to_keys, key, "route:other", "meter:reports") == Reason.KEY_SCOPE
    assert reason(open_to_keys, key, "route:other", "route:reports") is None
    assert reason(WRITES, key, "route:reports") == Reason.KEY_SCOPE
    assert reason(ADMINS, key, "route:admin") == Reason.KEY_SCOPE


def test_roles_and_scopes_are_found_where_the_settings_say() -> None:
    clerk = verifier(org_claim="o.id", roles_claim="o.rol", scopes_claim=("https://x.example/permissions",))
    claims = {"o": {"id": "acme", "rol": "admin"}, "https://x.example/permissions": ["a", "b"], "scope": "c"}
    found = clerk.verify_field(bearer(token({**payload(org_id=None), **claims})))
    assert found.roles == {"admin"}
    assert found.scopes == {"a", "b"}
