"""A call of a script as a value, and the checks that all calls share."""

import re
from typing import NamedTuple

from quota import access, keys
from quota.events import REQUEST_ID_PATTERN

_REQUEST_ID = re.compile(REQUEST_ID_PATTERN + r"\Z")  # a blank would break the event

Word = bytes | str | int


class Call(NamedTuple):
    """One run of a script of lua/."""

    script: str
    keys: list[str]
    argv: list[Word]


def books_of(org: str, shards: int) -> list[str]:
    """The first two keys of most scripts: the organization's hash, and the event stream of its shard."""
    return [keys.org_key(org, shards), keys.events_key(keys.shard_of(org, shards))]


def check_org(org: str) -> None:
    """Raises ValueError for a text that cannot be an organization's id."""
    if not keys.is_org(org):
        raise ValueError(f"an organization's id must match {keys.ORG_PATTERN}: {org!r}")


def check_path(path: str) -> str:
    """The organization of a path. Raises ValueError for a text that is no path."""
    access.check_path(path)
    return access.org_of(path)


def check_request_id(request_id: str) -> None:
    """Raises ValueError for a text that cannot be the request id of an event."""
    if not _REQUEST_ID.match(request_id):
        raise ValueError(f"a request id must be 1 to 200 printable ASCII characters: {request_id!r}")
