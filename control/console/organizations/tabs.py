"""The tabs of an organization's page: what each is called, where it is, and who may see it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control.access.permissions import Permission
from control.console.frame.viewer import Viewer


@dataclass(frozen=True, slots=True)
class Tab:
    name: str
    title: str
    permission: Permission


TABS: Final = (
    Tab("", "Overview", Permission.ORGANIZATIONS_READ),
    Tab("usage", "Usage", Permission.USAGE_READ),
    Tab("entitlement", "Entitlement", Permission.ENTITLEMENTS_READ),
    Tab("billing", "Billing", Permission.BILLING_READ),
    Tab("people", "People", Permission.MEMBERS_READ),
    Tab("access", "Access", Permission.KEYS_READ),
    Tab("incidents", "Incidents", Permission.INCIDENTS_READ),
    Tab("journal", "Journal", Permission.AUDIT_READ),
)


def tabs_of(viewer: Viewer, org: str, selected: str) -> Sequence[tuple[str, str, bool]]:
    """As `ui.tabs` takes them."""
    home = f"/console/organizations/{org}"
    return [
        (tab.title, f"{home}/{tab.name}".rstrip("/"), tab.name == selected)
        for tab in TABS
        if viewer.can(tab.permission)
    ]
