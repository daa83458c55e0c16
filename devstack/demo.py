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
"""Of organizations that are for trying out: no vendor wants them in a catalogue."""
ORGANIZATIONS = (
    DemoOrganization("tiny", "Tiny Tools", "tiny"),  # 100 calls a month, then refused
    DemoOrganization("acme", "Acme", "starter"),
    DemoOrganization("globex", "Globex", "growth"),  # pays for what goes beyond
    DemoOrganization("bulk", "Bulk", "bulk"),  # never exhausted, for load
    DemoOrganization("unpaid", "Unpaid", None),  # known, and entitled to nothing
)


def load(control_url: str, admin_token: str) -> dict[str, str | None]:
    """Makes what is missing and leaves the rest alone: what an admin changed since, and all usage.

    Returns each organization's plan. It is None where the catalogue is another than ours and has no such plan."""
    headers = {"authorization": f"Bearer {admin_token}"}
    with httpx.Client(base_url=control_url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        catalogue = {plan["code"] for plan in _call(client, "GET", "/v1/plans")["plans"] if not plan["archived"]}
        return {demo.org: _entitled(client, demo, catalogue) for demo in ORGANIZATIONS}


def _entitled(client: httpx.Client, demo: DemoOrganization, catalogue: set[str]) -> str | None:
    entitlement = f"/v1/entitlements/{demo.org}"
    known = _call(client, "GET", entitlement)
    if known is None:
        _call(client, "PUT", f"/v1/organizations/{demo.org}", {"name": demo.name})
        if demo.plan not in catalogue:
            return None
        known = _call(client, "PUT", entitlement, {"plan": demo.plan})
    plan: str | None = known["plan"]
    return plan


def _call(client: httpx.Client, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
    """The answer's body; None when there is no such thing."""
    try:
        response = client.request(method, path, json=content)
    except httpx.TransportError as e:
        raise StackError(f"the control plane did not answer {method} {path}: {e}") from e
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    if response.is_error:
        detail = response.text.splitlines()
        raise StackError(f"the control plane answered {response.status_code} to {method} {path}", detail)
    return response.json()
