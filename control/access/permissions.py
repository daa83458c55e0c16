"""What may be done, and which role may do it. Pure.

A role is a set of permissions. Admin roles reach all organizations, an organization's roles only their own: which one
is asked about is looked at by the endpoints' dependencies (control/http/guards.py).
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final


class Permission(Enum):
    """The value is its name in service tokens, in the OpenAPI document, and in refusals."""

    ACCESS_ADMIN = "access:admin"
    """Service tokens, and who has which admin role."""
    ACTIVATION_READ = "activation:read"
    ACTIVATION_WRITE = "activation:write"
    ANALYTICS_READ = "analytics:read"
    """What the vendor earns and what it costs."""
    APPROVALS_READ = "approvals:read"
    APPROVALS_WRITE = "approvals:write"
    """Approves what another admin has asked for; what it is needs its own permission, too."""
    ALERTS_READ = "alerts:read"
    ALERTS_WRITE = "alerts:write"
    """At which share of an allowance an organization's people want to hear of it."""
    API_READ = "api:read"
    """The description of the control API, where the settings do not expose it."""
    AUDIT_READ = "audit:read"
    BILLING_PORTAL = "billing:portal"
    """Opens Stripe's portal, in which a payment method is changed and a subscription is cancelled."""
    BILLING_READ = "billing:read"
    BILLING_WRITE = "billing:write"
    """Sign-ups, subscriptions, links to customers."""
    CAPS_WRITE = "caps:write"
    """Caps of overage that organizations set for themselves."""
    DECISIONS_READ = "decisions:read"
    """Refused requests, and why any request was decided as it was."""
    ENTITLEMENTS_READ = "entitlements:read"
    ENTITLEMENTS_WRITE = "entitlements:write"
    GRANTS_READ = "grants:read"
    GRANTS_WRITE = "grants:write"
    INCIDENTS_READ = "incidents:read"
    INCIDENTS_WRITE = "incidents:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    MEMBERS_READ = "members:read"
    MEMBERS_WRITE = "members:write"
    METRICS_READ = "metrics:read"
    MONEY_WRITE = "money:write"
    """Credit, refunds, coupons, discounts."""
    NOTIFICATIONS_READ = "notifications:read"
    NOTIFICATIONS_WRITE = "notifications:write"
    ORGANIZATIONS_DELETE = "organizations:delete"
    ORGANIZATIONS_READ = "organizations:read"
    ORGANIZATIONS_WRITE = "organizations:write"
    OWNERS_WRITE = "owners:write"
    """Makes members owners, and owners something else."""
    PEOPLE_ADMIN = "people:admin"
    """All that is stored of a person, and its erasure."""
    PLANS_READ = "plans:read"
    PLANS_WRITE = "plans:write"
    """The catalogue, for all organizations at once."""
    PORTAL_WRITE = "portal:write"
    """Opens the portal of any organization as any of its users, in any role: the vendor's server, which knows them."""
    REVOCATIONS_READ = "revocations:read"
    REVOCATIONS_WRITE = "revocations:write"
    SESSIONS_READ = "sessions:read"
    SESSIONS_WRITE = "sessions:write"
    SIGNING_KEYS_READ = "signing_keys:read"
    SIGNING_KEYS_WRITE = "signing_keys:write"
    SITES_READ = "sites:read"
    SITES_WRITE = "sites:write"
    TOKENS_WRITE = "tokens:write"
    """Short-lived tokens of an organization."""
    USAGE_READ = "usage:read"
    USAGE_WRITE = "usage:write"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    WEBHOOKS_READ = "webhooks:read"
    """The inboxes of Stripe's and of the identity provider's events."""
    WEBHOOKS_WRITE = "webhooks:write"


Permissions = frozenset[Permission]
P = Permission

ALL: Final[Permissions] = frozenset(Permission)


class AdminRole(Enum):
    """A person of the vendor."""

    VIEWER = "viewer"
    SUPPORT = "support"
    BILLING = "billing"
    ADMIN = "admin"


class OrganizationRole(Enum):
    """A person of an organization, in that organization."""

    MEMBER = "member"
    ADMIN = "admin"
    OWNER = "owner"


_VIEWER: Final = frozenset(each for each in Permission if each.value.endswith(":read"))

ADMIN_PERMISSIONS: Final[Mapping[AdminRole, Permissions]] = {
    AdminRole.VIEWER: _VIEWER,
    AdminRole.SUPPORT: _VIEWER
    | {
        P.ACTIVATION_WRITE,
        P.ALERTS_WRITE,
        P.CAPS_WRITE,
        P.GRANTS_WRITE,
        P.INCIDENTS_WRITE,
        P.KEYS_WRITE,
        P.MEMBERS_WRITE,
        P.NOTIFICATIONS_WRITE,
        P.ORGANIZATIONS_WRITE,
        P.OWNERS_WRITE,
        P.REVOCATIONS_WRITE,
        P.SESSIONS_WRITE,
        P.SITES_WRITE,
        P.USERS_WRITE,
        P.WEBHOOKS_WRITE,
    },
    AdminRole.BILLING: _VIEWER
    | {
        P.APPROVALS_WRITE,
        P.BILLING_PORTAL,
        P.BILLING_WRITE,
        P.CAPS_WRITE,
        P.ENTITLEMENTS_WRITE,
        P.GRANTS_WRITE,
        P.INCIDENTS_WRITE,
        P.MONEY_WRITE,
        P.ORGANIZATIONS_WRITE,
        P.WEBHOOKS_WRITE,
    },
    AdminRole.ADMIN: ALL,
}

_MEMBER: Final = frozenset(
    {
        P.ALERTS_READ,
        P.DECISIONS_READ,
        P.ENTITLEMENTS_READ,
        P.GRANTS_READ,
        P.MEMBERS_READ,
        P.ORGANIZATIONS_READ,
        P.PLANS_READ,
        P.USAGE_READ,
        P.USAGE_WRITE,
    }
)
_ORGANIZATION_ADMIN: Final = _MEMBER | {
    P.ACTIVATION_READ,
    P.ACTIVATION_WRITE,
    P.ALERTS_WRITE,
    P.BILLING_PORTAL,
    P.BILLING_READ,
    P.KEYS_READ,
    P.KEYS_WRITE,
    P.MEMBERS_WRITE,
    P.REVOCATIONS_READ,
    P.REVOCATIONS_WRITE,
    P.SITES_READ,
    P.SITES_WRITE,
    P.TOKENS_WRITE,
}

ORGANIZATION_PERMISSIONS: Final[Mapping[OrganizationRole, Permissions]] = {
    OrganizationRole.MEMBER: _MEMBER,
    OrganizationRole.ADMIN: _ORGANIZATION_ADMIN,
    OrganizationRole.OWNER: _ORGANIZATION_ADMIN | {P.CAPS_WRITE, P.OWNERS_WRITE},
}

TOKEN_PERMISSIONS: Final[Permissions] = frozenset(
    {
        P.BILLING_PORTAL,
        P.BILLING_READ,
        P.DECISIONS_READ,
        P.ENTITLEMENTS_READ,
        P.GRANTS_READ,
        P.ORGANIZATIONS_READ,
        P.PLANS_READ,
        P.USAGE_READ,
        P.USAGE_WRITE,
    }
)
"""Of an organization's token of which no role is known: it reads its own, reports usage, opens the portal."""

WITH_ANY_ROLE: Final[Permissions] = _MEMBER & TOKEN_PERMISSIONS
"""What each token of an organization has, whatever its role: for these no role is looked up."""
