"""What the control plane has, read by its endpoints."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Protocol

from quotagate.admin import path_of
from quotagate.configuration import forms
from quotagate.configuration.forms import Form

PATH = "/v1/configuration/organizations"
AT_ONCE = 100
"""Organizations that are asked for in one request."""


class Api(Protocol):
    def get(self, path: str, query: dict[str, Any] | None = None) -> Any: ...
    def pages(self, path: str, member: str, cursor: str = ..., limit: int = ...) -> Iterator[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Plan:
    form: Form
    version: int
    archived: bool


@dataclass(frozen=True, slots=True)
class Held:
    """An organization as the server has it."""

    org: str
    form: Form
    version: int
    """Of its entitlement; 0: it never had one."""
    deleted: bool
    mirrored: bool
    """Its name follows the identity provider."""
    followed: bool
    """Its status follows payments."""
    grant_ids: tuple[tuple[Form, str], ...]
    """The live grants, each with its id."""


def read_plans(api: Api) -> dict[str, Plan]:
    return {
        each["code"]: Plan(forms.plan_form(each), each["version"], each["archived"])
        for each in sorted(api.get("/v1/plans")["plans"], key=lambda plan: str(plan["code"]))
    }


def count_organizations(api: Api) -> int:
    return int(api.get(PATH, {"limit": 1})["count"])


def read_organization(api: Api, org: str) -> Held | None:
    """None: there never was one of this id."""
    return read_organizations(api, [org]).get(org)


def read_organizations(api: Api, orgs: Sequence[str]) -> dict[str, Held]:
    """Those of at most `AT_ONCE` that are there, or were."""
    content = api.get(PATH, {"org": list(orgs)})["organizations"]
    return {held.org: held for held in (_held(api, each) for each in content)}


def all_organizations(api: Api) -> Iterator[Held]:
    """Those that are there, in the server's order."""
    return (_held(api, each) for each in api.pages(PATH, "organizations", "after", AT_ONCE))


def in_batches(orgs: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many as may be asked for in one request."""
    left = iter(orgs)
    while batch := list(islice(left, AT_ONCE)):
        yield batch


def exported(held: Held, now: datetime) -> Form:
    return forms.shown(held.form, followed=held.followed, mirrored=held.mirrored, now=now)


def _held(api: Api, content: dict[str, Any]) -> Held:
    organization, entitlement = content["organization"], content["entitlement"]
    org = str(organization["id"])
    if content["has_more_keys"]:
        keys = [each for each in api.pages(f"{path_of(org)}/keys", "keys") if each["state"] != "revoked"]
        content = content | {"keys": keys}
    return Held(
        org,
        forms.organization_form(content),
        version=entitlement["version"] if entitlement else 0,
        deleted=organization["deleted_at"] is not None,
        mirrored=organization["mirrored"],
        followed=content["follows_payments"],
        grant_ids=tuple((forms.grant_form(each), str(each["id"])) for each in content["grants"]),
    )
