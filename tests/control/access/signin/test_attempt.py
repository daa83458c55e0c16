import pytest

from control.access.signin.attempt import Attempt, own_path
from devstack.oidc.provider import challenge_of


@pytest.mark.parametrize("path", ["/console", "/console/sign-in", "/console/organizations?org=acme&page=2"])
def test_a_path_of_ours_is_returned_to(path: str) -> None:
    assert own_path(path) == path


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "https://evil.example/console",
        "//evil.example/console",
        "/\\evil.example",
        "/console//evil.example",
        "/console/../v1/plans",
        "/console/%2e%2e/x",
        "/console\r\nSet-Cookie: a=b",
        "/consoleevil",
        "/console@evil.example",
        "/v1/plans",
        "javascript:alert(1)",
        "/console?x=" + "a" * 600,
        "/console\n",
    ],
)
def test_no_other_address_is_returned_to(given: str | None) -> None:
    assert own_path(given) == "/console"


def test_an_attempt_survives_its_cookie() -> None:
    attempt = Attempt.begin("example", "/console/keys?org=acme")
    again = Attempt.from_cookie(attempt.to_cookie())
    assert again == attempt
    assert again is not None
    assert again.is_answered_by(attempt.state)


def test_what_a_provider_sees_tells_nothing_of_what_it_does_not() -> None:
    attempt = Attempt.begin("example", None)
    values = {attempt.state, attempt.nonce, attempt.verifier, challenge_of(attempt.verifier)}
    assert len(values) == 4
    assert all(len(value) == 43 and value not in attempt.to_cookie() for value in values)


def test_an_answer_to_another_browser_is_not_ours() -> None:
    mine, others = Attempt.begin("example", None), Attempt.begin("example", None)
    assert not mine.is_answered_by(others.state)
    assert not mine.is_answered_by("")
    assert not mine.is_answered_by("ü")


@pytest.mark.parametrize("value", ["", "a.b", "a.b.c", "a.b.c.d", "ü.b.c", "!.example.!", "AAAA.example.L2NvbnNvbGU."])
def test_a_cookie_that_is_none_of_ours_is_no_attempt(value: str) -> None:
    assert Attempt.from_cookie(value) is None


def test_a_changed_cookie_leads_to_no_other_page() -> None:
    secret, provider, _, organization = Attempt.begin("example", None).to_cookie().split(".")
    changed = Attempt.from_cookie(f"{secret}.{provider}.Ly9ldmlsLmV4YW1wbGU.{organization}")  # //evil.example
    assert changed is not None
    assert changed.return_to == "/console"


def test_from_the_portal_nobody_returns_to_the_console() -> None:
    assert own_path("/portal/usage?by=key", "/portal") == "/portal/usage?by=key"
    for given in ("/console/account", "/portalevil", "/portal//evil.example", None):
        assert own_path(given, "/portal") == "/portal"
    kept = Attempt.begin("portal", "/portal/keys", "/portal", "acme").to_cookie()
    again = Attempt.from_cookie(kept, "/portal")
    assert again is not None
    assert (again.return_to, again.organization) == ("/portal/keys", "acme")
    elsewhere = Attempt.from_cookie(kept)
    assert elsewhere is not None
    assert elsewhere.return_to == "/console"
