import pytest

from control.access.signin.same_origin import ForeignPage, check_origin, check_token, token_of

OURS = "https://control.example.com"


@pytest.mark.parametrize(
    ("method", "site", "origin"),
    [
        ("POST", "same-origin", OURS),
        ("POST", "same-origin", None),
        ("GET", "none", None),
        ("GET", None, None),
        ("POST", None, OURS),
        ("POST", None, OURS.upper()),
    ],
)
def test_a_page_of_ours_may(method: str, site: str | None, origin: str | None) -> None:
    check_origin(method, site, origin, OURS)


@pytest.mark.parametrize(
    ("method", "site", "origin"),
    [
        ("POST", "cross-site", None),
        ("POST", "same-site", None),
        ("POST", "cross-site", OURS),
        ("POST", "none", OURS),
        ("POST", "", OURS),
        ("POST", "Same-Origin", OURS),
        ("GET", "cross-site", None),
        ("GET", "same-site", None),
        ("POST", None, None),
        ("POST", None, "null"),
        ("POST", None, "https://control.example.com.evil.example"),
        ("POST", None, "http://control.example.com"),
        ("POST", None, "https://control.example.com:8443"),
        ("DELETE", None, "https://evil.example"),
        ("GET", None, "https://evil.example"),
    ],
)
def test_no_other_page_may(method: str, site: str | None, origin: str | None) -> None:
    with pytest.raises(ForeignPage):
        check_origin(method, site, origin, OURS)


def test_a_token_is_good_for_its_own_session_only() -> None:
    check_token(token_of("secret"), token_of("secret"))
    for given in (None, "", token_of("another"), "secret", "ü"):
        with pytest.raises(ForeignPage):
            check_token(token_of("secret"), given)
    assert "secret" not in token_of("secret")
