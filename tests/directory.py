"""Whom the OpenID provider of a test knows."""

import json
from pathlib import Path
from typing import Any

CLIENT: dict[str, str] = {"client_id": "quotagate-console", "client_secret": "secret-of-the-client"}


def person(username: str, **claims: Any) -> dict[str, Any]:
    known = {
        "sub": f"id-of-{username}",
        "email": f"{username}@example.com",
        "email_verified": True,
        "name": username.title(),
        "realm_access": {"roles": []},
    }
    return {"username": username, "password": f"{username}'s password", "claims": known | claims}


def with_roles(username: str, *roles: str, **claims: Any) -> dict[str, Any]:
    return person(username, realm_access={"roles": list(roles)}, **claims)


def customer(username: str, *orgs: str, **claims: Any) -> dict[str, Any]:
    """Somebody of these organizations, for their portals."""
    return person(username, org_id=orgs[0] if len(orgs) == 1 else list(orgs), **claims)


ADA = with_roles("ada", "quotagate-admins", acr="urn:mfa", amr=["pwd", "otp"])
VERA = with_roles("vera", "quotagate-viewers", acr="urn:password", amr=["pwd"])
NEMO = with_roles("nemo", "gardeners")


def written(file: Path, redirect_uri: str, *more: dict[str, Any], **client: Any) -> Path:
    base = redirect_uri.partition("/console/")[0]
    client = {
        **CLIENT,
        **client,
        "redirect_uris": [redirect_uri, f"{base}/portal/signed-in"],
        "post_logout_redirect_uris": [f"{base}/console/signed-out", f"{base}/portal/signed-out"],
    }
    file.write_text(json.dumps({"clients": [client], "people": [ADA, VERA, NEMO, *more]}))
    return file
