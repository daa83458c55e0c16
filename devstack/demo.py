"""The demo organizations: each shows one thing that the gateway does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from devstack.child import StackError

TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class DemoOrganization:
    org: str
    name: str
    plan: str | None


PLANS = Path(__file__).with_name("demo-plans.yaml")
"""The plans of organizations that are only for trying out: no vendor wants them in a catalogue."""
ORGANIZATIONS = (
    DemoOrganization("tiny", "Tiny Tools", "tiny"),  # 100 calls a month, then refused
    DemoOrganization("acme", "Acme", "starter"),
    DemoOrganization("globex", "Globex", "growth"),  # pays for what goes beyond
    DemoOrganization("bulk", "Bulk", "bulk"),  # never exhausted, for load
    DemoOrganization("unpaid", "Unpaid", None),  # exists, and is entitled to nothing
)


def load(control_url: str, admin_token: str) -> dict[str, str | None]:
    """Makes what is missing. What an admin has changed since, and all usage, stays as it is.

    Returns each organization's plan; None where the catalogue is not ours and has no such plan."""
    headers = {"authorization": f"Bearer {admin_token}"}
    with httpx.Client(base_url=control_url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        catalogue = {plan["code"] for plan in _call(client, "GET", "/v1/plans")["plans"] if not plan["archived"]}
        return {demo.org: _entitled(client, demo, catalogue) for demo in ORGANIZATIONS}


def _entitled(client: httpx.Client, demo: DemoOrganization, catalogue: set[str]) -> str | None:
    path = f"/v1/entitlements/{demo.org}"
    entitlement = _call(client, "GET", path)
    if entitlement is None:
        _call(client, "PUT", f"/v1/organizations/{demo.org}", {"name": demo.name})
        if demo.plan not in catalogue:
            return None
        entitlement = _call(client, "PUT", path, {"plan": demo.plan})
    plan: str | None = entitlement["plan"]
    return plan


def _call(client: httpx.Client, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
    """The body of the answer; None where it is 404. Raises `StackError`."""
    try:
        response = client.request(method, path, json=content)
    except httpx.TransportError as e:
        raise StackError(f"the control plane did not answer {method} {path}: {e}") from e
    if response.status_code == httpx.codes.UNAUTHORIZED:
        # Whoever revokes `bootstrap` has made another admin token before: that may stand in its place.
        raise StackError(
            "the control plane refuses the admin token, which was revoked or has expired: "
            "put a service token of role admin into the data directory's secrets.json, as `admin_token`"
        )
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    if response.is_error:
        detail = response.text.splitlines()
        raise StackError(f"the control plane answered {response.status_code} to {method} {path}", detail)
    return response.json()
