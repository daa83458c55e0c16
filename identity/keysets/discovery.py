"""Where an issuer's key set is, by its own configuration. Source: OpenID Connect Discovery 1.0, sections 3 and 4.

What the configuration says of algorithms, claims and end points is not used: the settings pin what is trusted.
"""

import json
from typing import Any, Final

from common.urls import is_loopback, split_url
from identity.keysets.jwk import KeySetUnavailable

PATH: Final = "/.well-known/openid-configuration"


def configuration_url(issuer: str) -> str:
    """Section 4.1: a slash at the issuer's end is not doubled."""
    return issuer.removesuffix("/") + PATH


def key_set_url(configuration: bytes, issuer: str) -> str:
    """The address of the key set. Raises KeySetUnavailable for the configuration of somebody else (section 4.3: the
    names must be the same, character by character), and for an address that others could answer for."""
    try:
        members: Any = json.loads(configuration)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise KeySetUnavailable("its configuration is not a JSON object")
    if members.get("issuer") != issuer:
        raise KeySetUnavailable("its configuration names another issuer")
    url = members.get("jwks_uri")
    if not isinstance(url, str):
        raise KeySetUnavailable("its configuration names no jwks_uri")
    try:
        parts = split_url(url, ("https", "http"))
    except ValueError:
        raise KeySetUnavailable("its jwks_uri is not a URL") from None
    # From elsewhere nobody may send us to this machine, where services trust who is near.
    near = is_loopback(parts.hostname or "") and not _is_here(issuer)
    if parts.username is not None or near or (parts.scheme == "http" and not is_loopback(parts.hostname or "")):
        raise KeySetUnavailable("its jwks_uri is not an https URL without credentials")
    return url


def _is_here(issuer: str) -> bool:
    return is_loopback(split_url(issuer, ("https", "http")).hostname or "")
