"""What the vendor's identity provider says of a customer. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from control.access.people.members import role_claimed
from control.access.permissions import OrganizationRole
from control.access.signin.claims import texts_at
from control.settings.portal import CustomerSignIn
from quota.keys import is_org

ORGANIZATIONS_MAX: Final = 50  # a person chooses among them
USER_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:@|-]{1,128}")


@dataclass(frozen=True, slots=True)
class Identified:
    subject: str
    """The provider's own id of the person."""
    user: str | None
    """As tokens name the user; None: the claim has nothing that can be one."""
    organizations: Sequence[str]
    """Those that the claim names."""
    role: OrganizationRole | None
    """By the claim, or the default; None: the person has none."""


def identified_by(claims: Mapping[str, Any], settings: CustomerSignIn) -> Identified:
    named = dict.fromkeys(filter(is_org, texts_at(claims, settings.organization_claim)))
    users = [each for each in texts_at(claims, settings.user_claim) if USER_PATTERN.fullmatch(each)]
    return Identified(
        subject=str(claims["sub"]),
        user=users[0] if len(users) == 1 else None,
        organizations=list(named)[:ORGANIZATIONS_MAX],
        role=_role(texts_at(claims, settings.role_claim), settings),
    )


def _role(words: Sequence[str], settings: CustomerSignIn) -> OrganizationRole | None:
    """The highest of those that are named."""
    given = role_claimed(
        [settings.roles[word] for word in words if word in settings.roles] if settings.roles else words
    )
    if given is None and settings.default_role is not None:
        return OrganizationRole(settings.default_role)
    return given
