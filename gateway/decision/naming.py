"""How a principal is named: in events, to upstreams and in the access log.

It is done once for each principal, and again where its key has got another user.
"""

import json
from typing import Protocol

from identity.claims import Claims
from quota.access import KeyRecord, Path, encoded_user


class Named(Protocol):
    """An organization as the ledger and the upstreams are told of it."""

    @property
    def keys_bulk(self) -> bytes: ...
    @property
    def upstream_fields(self) -> bytes: ...


class Organizations(Protocol):
    def identity(self, org: str) -> Named: ...


class Naming:
    """By the settings of a gateway."""

    __slots__ = ("_key", "_organizations", "_user")

    def __init__(self, organizations: Organizations, *, key: bool, user: bool) -> None:
        """`key`, `user`: whether upstreams are told of them."""
        self._organizations = organizations
        self._key = key
        self._user = user

    def name(self, claims: Claims, record: KeyRecord | None = None) -> None:
        """`record`: of an API key."""
        if record is not None:
            claims.record, claims.user = record, record.user
        user = None if claims.user is None else encoded_user(claims.user)
        key = None if claims.record is None else claims.record.id
        path = str(Path(claims.org, claims.user, key))
        if path == claims.path:
            return
        organization = self._organizations.identity(claims.org)
        claims.path, claims.keys_words = path, organization.keys_bulk
        told = organization.upstream_fields
        if self._key and key is not None:
            told += b"X-Quota-Key: %b\r\n" % key.encode()
        if self._user and user is not None:
            told += b"X-Quota-User: %b\r\n" % user.encode()
        claims.upstream_fields = told
        logged = b',"org":"%b"' % claims.org.encode()  # no character of it needs an escape
        if key is not None:
            logged += b',"key":"%b"' % key.encode()
        if claims.user is not None:
            logged += b',"user":%b' % json.dumps(claims.user).encode()
        claims.log_members = logged
