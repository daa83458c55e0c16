"""The demo organizations: each shows one thing that the gateway does."""

from dataclasses import dataclass

import httpx

from devstack.child import StackError

TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class DemoOrganization:
    org: str
    name: str
    plan: str | None


ORGANIZATIONS = (
    DemoOrganization("tiny", "Tiny Tools", "tiny"),  # 100 calls a month, then refused
    DemoOrganization("acme", "Acme", "starter"),
    DemoOrganization("globex", "Globex", "growth"),  # pays for what goes beyond
    DemoOrganization("bulk", "Bulk", "bulk"),  # never exhausted, for load
    DemoOrganization("unpaid", "Unpaid", None),  # known, and entitled to nothing
)


def load(control_url: str, admin_token: str) -> None:
    """Makes what is missing and leaves the rest alone: plans that somebody changed since, and all usage."""
    headers = {"authorization": f"Bearer {admin_token}"}
    with httpx.Client(base_url=control_url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        for demo in ORGANIZATIONS:
            _put(client, f"/v1/organizations/{demo.org}", {"name": demo.name})
            if demo.plan is not None and client.get(f"/v1/entitlements/{demo.org}").status_code == 404:
                _put(client, f"/v1/entitlements/{demo.org}", {"plan": demo.plan})


def _put(client: httpx.Client, path: str, content: dict[str, str]) -> None:
    try:
        response = client.put(path, json=content)
    except httpx.TransportError as e:
        raise StackError(f"the control plane did not answer PUT {path}: {e}") from e
    if response.is_error:
        raise StackError(f"the control plane answered {response.status_code} to PUT {path}", response.text.splitlines())
