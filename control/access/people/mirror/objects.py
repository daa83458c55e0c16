"""Clerk's events and objects, as they are read here. Pure.

https://clerk.com/docs/webhooks/overview, https://clerk.com/docs/reference/backend-api
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from control.access.permissions import OrganizationRole
from quota.keys import is_org

Object = Mapping[str, Any]
NAME_CHARACTERS_MAX: Final = 200

_USER: Final = re.compile(r"[A-Za-z0-9_.:@|-]{1,128}")
_EMAIL: Final = re.compile(r"[^@\s\x00]{1,256}@[^@\s\x00]{1,255}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")


class Kind(Enum):
    """What is looked at."""

    USER = "user"
    ORGANIZATION = "organization"
    ALL = "all"
    """Everything there is: finds what no event told of."""


@dataclass(frozen=True, slots=True)
class Subject:
    kind: Kind
    id: str = ""


EVERYTHING: Final = Subject(Kind.ALL)


class Unreadable(ValueError):
    """An object of Clerk's is not as its documentation says."""


@dataclass(frozen=True, slots=True)
class Person:
    id: str
    email: str | None
    name: str | None


def subject_of(event: Object) -> Subject | None:
    """What an event is about; None: nothing that is mirrored."""
    type_, data = event.get("type"), event.get("data")
    if not isinstance(type_, str) or not isinstance(data, dict):
        return None
    family = type_.partition(".")[0]
    if family == "user":
        return _subject(Kind.USER, data.get("id"))
    if family == "organization":
        return _subject(Kind.ORGANIZATION, data.get("id"))
    if family == "organizationMembership":
        organization = data.get("organization")
        return _subject(Kind.ORGANIZATION, organization.get("id") if isinstance(organization, dict) else None)
    return None


def _subject(kind: Kind, id_: object) -> Subject | None:
    is_good = is_user if kind is Kind.USER else is_organization
    return Subject(kind, id_) if isinstance(id_, str) and is_good(id_) else None


def is_user(id_: str) -> bool:
    return _USER.fullmatch(id_) is not None


def is_organization(id_: str) -> bool:
    return is_org(id_)


def person_of(user: Object) -> Person:
    """Raises Unreadable."""
    first, last = user.get("first_name"), user.get("last_name")
    name = _text(" ".join(part for part in (first, last) if isinstance(part, str) and part))
    return Person(id_of(user), _email(user), name)


def _email(user: Object) -> str | None:
    addresses, primary = user.get("email_addresses"), user.get("primary_email_address_id")
    for address in addresses if isinstance(addresses, list) else ():
        if isinstance(address, dict) and address.get("id") == primary:
            email = address.get("email_address")
            return email if isinstance(email, str) and _EMAIL.fullmatch(email) else None
    return None


def name_of(organization: Object) -> str:
    """Raises Unreadable."""
    name = organization.get("name")
    return (_text(name) if isinstance(name, str) else None) or id_of(organization)


def id_of(item: Object) -> str:
    """Raises Unreadable."""
    id_ = item.get("id")
    if not isinstance(id_, str):
        raise Unreadable("an object of Clerk's has no id")
    return id_


def member_of(membership: Object, roles: Mapping[str, OrganizationRole]) -> tuple[str, OrganizationRole]:
    """The user and its role; a role that the settings do not know is a member's. Raises Unreadable."""
    user = membership.get("public_user_data")
    id_, role = (user.get("user_id") if isinstance(user, dict) else None), membership.get("role")
    if not isinstance(id_, str) or not isinstance(role, str):
        raise Unreadable("a membership of Clerk's names no user, or no role")
    return id_, roles.get(role, OrganizationRole.MEMBER)


def _text(text: str) -> str | None:
    return _CONTROL.sub(" ", text).strip()[:NAME_CHARACTERS_MAX].strip() or None
