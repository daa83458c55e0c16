"""The gateway's settings in the embedded stack: the packaged ones, and the control plane as a second issuer."""

import re
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from devstack.token_mint import AUDIENCE, ORG_CLAIM

HEAD: Final = "# Made by `quotagate up` at each start. --gateway-config names another file.\n"
AUTH: Final = re.compile(r"^auth:.*\n(?:(?:[ #].*)?\n)*", re.MULTILINE)
OF_ALL_ISSUERS: Final = ("issuers", "keys", "cache_entries_max")


def write(file: Path, control_url: str) -> None:
    packaged = resources.files("config").joinpath("gateway.yaml").read_text(encoding="utf-8")
    file.write_text(HEAD + with_issuer(packaged, control_url), encoding="utf-8")


def with_issuer(settings: str, control_url: str) -> str:
    """The settings, in which tokens that the control plane at this URL issues are trusted, too. All else stays as it is
    written, comments too: YAML's own reader would take a field `on` for a boolean."""
    block = AUTH.search(settings)
    assert block is not None  # noqa: S101  the settings are packaged, and have it
    auth: dict[str, Any] = yaml.safe_load(block[0])["auth"]
    of_all = {name: auth[name] for name in OF_ALL_ISSUERS if name in auth}
    own = {name: value for name, value in auth.items() if name not in OF_ALL_ISSUERS}
    control = {
        "issuer": control_url,
        "discovery": True,
        "algorithms": ["EdDSA", "ES256"],
        "audience": AUDIENCE,
        "org_claim": ORG_CLAIM,
    }
    several = {"auth": of_all | {"issuers": [*auth.get("issuers", ()), own, control]}}
    dumped = yaml.safe_dump(several, sort_keys=False, allow_unicode=True, width=120)
    return f"{settings[: block.start()]}{dumped}\n{settings[block.end() :]}"
