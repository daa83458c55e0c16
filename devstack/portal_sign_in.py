"""The portal's sign-in in the embedded stack: a small OpenID provider, whom it knows, and the settings that name it."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from devstack.demo import DemoOrganization
from devstack.regions import with_region

HEAD: Final = "# Made by `quotagate up` at each start. --control-config names another file.\n"
NONE: Final = "  sign_in: null\n"
CLIENT: Final = "quotagate-portal"  # without a secret: PKCE protects it


def write_people(file: Path, control_url: str, organizations: Sequence[DemoOrganization]) -> None:
    """An owner of each organization; user name and password are the organization's id."""
    client = {
        "client_id": CLIENT,
        "client_secret": "",
        "redirect_uris": [f"{control_url}/portal/signed-in"],
        "post_logout_redirect_uris": [f"{control_url}/portal/signed-out"],
    }
    people = [{"username": each.org, "password": each.org, "claims": _claims(each)} for each in organizations]
    file.write_text(json.dumps({"clients": [client], "people": people}, indent=2), encoding="utf-8")


def _claims(demo: DemoOrganization) -> Mapping[str, Any]:
    return {"sub": f"owner_of_{demo.org}", "name": f"Owner of {demo.name}", "org_id": demo.org, "org_role": "owner"}


def write_settings(file: Path, issuer: str, region: str | None = None) -> None:
    """`region`: which of several it works for."""
    packaged = resources.files("config").joinpath("control.yaml").read_text(encoding="utf-8")
    if region is not None:
        packaged = with_region(packaged, region)
    file.write_text(HEAD + with_sign_in(packaged, issuer), encoding="utf-8")


def with_sign_in(settings: str, issuer: str) -> str:
    """The settings, in which customers sign in at this provider. All else stays as it is written, comments too."""
    assert settings.count(NONE) == 1  # noqa: S101  the settings are packaged, and have it
    sign_in = {
        "issuer": issuer,
        "client_id": CLIENT,
        "organization_claim": "org_id",
        "role_claim": "org_role",
        "label": "the sample identity provider",
    }
    block = yaml.safe_dump({"sign_in": sign_in}, sort_keys=False)
    return settings.replace(NONE, "".join(f"  {line}\n" for line in block.splitlines()))
