"""What the control plane has, read by its endpoints."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote

from quotagate.configuration import forms
from quotagate.configuration.forms import Form

AT_ONCE = 8
"""Organizations that are read at the same time."""
PAGE = 500


class Api(Protocol):
    def get(self, path: str, query: dict[str, Any] | None = None) -> Any: ...
    def find(self, path: str) -> Any | None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    form: Form
    version: int
    archived: bool


@dataclass(frozen=True, slots=True)
class Held:
    """An organization as the server has it."""

    form: Form
    version: int
    """Of its entitlement; 0: it never had one."""
    deleted: bool
    mirrored: bool
    """Its name follows the identity provider."""
    grant_ids: tuple[tuple[Form, str], ...]
    """The live grants, each with its id."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An organization that is there; its status may follow payments."""

    org: str
    followed: bool


def read_plans(api: Api) -> dict[str, Plan]:
    return {
        each["code"]: Plan(forms.plan_form(each), each["version"], each["archived"])
        for each in sorted(api.get("/v1/plans")["plans"], key=lambda plan: str(plan["code"]))
    }


def list_organizations(api: Api) -> list[Listed]:
    """In the order of their ids. The list is up to five seconds old."""
    found = [
        Listed(each["id"], each["summary"]["subscription_status"] is not None)
        for each in _pages(api, "/v1/organizations", "organizations", "after")
    ]
    return sorted(found, key=lambda listed: listed.org)


def read_organization(api: Api, org: str) -> Held | None:
    """None: there never was one of this id."""
    path = path_of(org)
    organization = api.find(path)
    if organization is None:
        return None
    if organization["deleted_at"] is not None:
        # The rest of it is hidden until it is restored.
        form = forms.organization_form(organization, None, (), (), {"percents": []}, ())
        return Held(form, 0, deleted=True, mirrored=organization["mirrored"], grant_ids=())
    entitlement = api.find(entitlement_path(org))
    grants = list(_pages(api, f"{path}/grants", "grants", "before"))
    form = forms.organization_form(
        organization,
        entitlement,
        grants,
        api.get(f"{path}/caps")["caps"],
        api.get(f"{path}/alerts"),
        _pages(api, f"{path}/keys", "keys", "before"),
    )
    return Held(
        form,
        version=entitlement["version"] if entitlement else 0,
        deleted=False,
        mirrored=organization["mirrored"],
        grant_ids=tuple((forms.grant_form(each), str(each["id"])) for each in grants if each["state"] == "live"),
    )


def read_organizations(api: Api, orgs: list[str], tick: Callable[[], None]) -> dict[str, Held]:
    """Those of them that are there, or were. `tick` is called after each."""
    held: dict[str, Held] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for org, found in zip(orgs, pool.map(lambda org: read_organization(api, org), orgs), strict=True):
                if found is not None:
                    held[org] = found
                tick()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return held


def exported(held: Held, listed: Listed, now: datetime) -> Form:
    return forms.shown(held.form, followed=listed.followed, mirrored=held.mirrored, now=now)


def path_of(org: str) -> str:
    return f"/v1/organizations/{quote(org, safe='')}"


def entitlement_path(org: str) -> str:
    return f"/v1/entitlements/{quote(org, safe='')}"


def _pages(api: Api, path: str, member: str, cursor: str) -> Iterator[dict[str, Any]]:
    after: str | None = None
    while True:
        page = api.get(path, {"limit": PAGE} | ({cursor: after} if after else {}))
        yield from page[member]
        after = page["next"]
        if after is None:
            return
