from typing import Any

import pytest

from control.access.signin.claims import person_of, roles_of
from control.settings.signin import Provider

PROVIDER = Provider.model_validate(
    {
        "name": "example",
        "issuer": "https://issuer.example.com",
        "client_id": "console",
        "roles_claim": "realm_access.roles",
        "roles": {"quotagate-admins": "admin", "quotagate-viewers": "viewer"},
    }
)


@pytest.mark.parametrize(
    ("claims", "path"),
    [
        ({"groups": ["staff", "ops"]}, "groups"),
        ({"groups": "ops"}, "groups"),
        ({"groups": {"ops": {"id": "1"}}}, "groups"),
        ({"realm_access": {"roles": ["ops"]}}, "realm_access.roles"),
        ({"https://example.com/roles": ["ops"]}, "https://example.com/roles"),
    ],
)
def test_a_role_is_found_in_each_form_that_providers_have(claims: dict[str, Any], path: str) -> None:
    assert roles_of(claims, path, {"ops": "admin"}) == {"admin"}


@pytest.mark.parametrize(
    "claims", [{}, {"groups": None}, {"groups": 7}, {"groups": ["opsx", 1, None, ["ops"]]}, {"groups": "ops staff"}]
)
def test_a_value_that_is_not_named_gives_no_role(claims: dict[str, Any]) -> None:
    assert roles_of(claims, "groups", {"ops": "admin"}) == frozenset()


def test_an_address_counts_only_where_the_provider_has_verified_it() -> None:
    claims = {"sub": "1", "email": "Ada@Example.com"}
    assert person_of({**claims, "email_verified": True}, PROVIDER).email == "ada@example.com"
    for verified in (False, "false", None, 1):
        assert person_of({**claims, "email_verified": verified}, PROVIDER).email is None
    assert person_of(claims, PROVIDER).email is None


def test_a_name_that_is_unfit_for_a_page_or_a_log_is_left_out() -> None:
    for name in ("a\nb", "", "x" * 201, 7, "\ud800"):
        assert person_of({"sub": "1", "name": name}, PROVIDER).name is None
