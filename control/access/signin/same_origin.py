"""Whether a request that carries a session comes from a page of ours. Pure.

`SameSite=Lax` keeps the cookie from other sites, but another port of this host is the same site to a browser. So the
browser's own word is asked: `Sec-Fetch-Site` (Fetch Metadata), or `Origin` (RFC 6454) of a browser that does not send
it. A request that changes something also carries a token that only a page of the session has.
"""

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class ForeignPage(Exception):
    """The request was made by a page that is not ours, or does not show that it was. The message says which."""


def check_origin(method: str, site: str | None, origin: str | None, own_origin: str) -> None:
    """`site`, `origin`: the fields Sec-Fetch-Site and Origin. Raises ForeignPage."""
    if site is not None:
        # `none`: the person typed the address or chose a bookmark. No page makes such a request, nor a form.
        if site == "same-origin" or (site == "none" and method in SAFE_METHODS):
            return
        raise ForeignPage("The request comes from a page of another origin.")
    if origin is not None:
        if origin.lower() == own_origin:
            return
        raise ForeignPage(f"The request comes from a page of another origin than {own_origin}.")
    if method not in SAFE_METHODS:
        raise ForeignPage("The request has neither Sec-Fetch-Site nor Origin, so it is from no browser.")


def token_of(session_secret: str) -> str:
    """The token of the session's pages. It tells nothing of the session's secret, and ends with the session."""
    return urlsafe_b64encode(hmac.digest(session_secret.encode(), b"csrf", sha256)).rstrip(b"=").decode()


def check_token(token: str, given: str | None) -> None:
    """`token`: that of the session's pages. Raises ForeignPage."""
    if given is None or not hmac.compare_digest(given.encode(), token.encode()):
        raise ForeignPage("The token of the page is missing or of another session. Load the page again.")
