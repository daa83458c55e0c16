"""The types of `activation.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("activation")


@dataclass(frozen=True, slots=True)
class ActivationCode:
    id: UUID
    handle: str
    org: str
    plan: str | None
    """It makes the organization, with this plan. None: the organization is there already."""
    product: str
    sites: int
    scopes: Sequence[str]
    uncounted_domains: Sequence[str]
    access_seconds: int | None
    note: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    refusals: int
    refused_for: str | None
    refused_at: datetime | None


@dataclass(frozen=True, slots=True)
class UsedCode:
    id: UUID
    handle: str
    org: str
    plan: str | None
    product: str
    sites: int
    scopes: Sequence[str]
    uncounted_domains: Sequence[str]
    access_seconds: int | None
    note: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    refusals: int
    refused_for: str | None
    refused_at: datetime | None
    taken: int


@dataclass(frozen=True, slots=True)
class Site:
    id: str
    org: str
    code: UUID
    product: str
    name: str | None
    domain: str
    former_domain: str | None
    key: str
    kind: str
    clone_of: str | None
    state: str
    ended_by: str | None
    activated_at: datetime
    seen_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class RefreshFamily:
    id: str
    site: str
    tag_key: bytes
    generation: int
    digest: bytes
    salt: bytes
    attempt: bytes | None
    rotated_at: datetime
    ended_by: str | None


@sql
async def insert_code(
    connection: Connection,
    *,
    id: UUID,
    digest: bytes,
    handle: str,
    org: str,
    plan: str | None,
    product: str,
    sites: int,
    scopes: Sequence[str],
    uncounted_domains: Sequence[str],
    access_seconds: int | None,
    note: str | None,
    created_by: str,
    created_at: datetime,
    expires_at: datetime,
) -> None: ...


@sql
async def code_of(connection: Connection, *, digest: bytes) -> ActivationCode | None: ...


@sql
async def find_code(connection: Connection, *, id: UUID) -> ActivationCode | None: ...


@sql
async def lock_code(connection: Connection, *, id: UUID) -> ActivationCode | None: ...


@sql
async def codes(
    connection: Connection, *, org: str | None, before: UUID | None, id: UUID | None, limit_rows: int
) -> list[UsedCode]: ...


@sql
async def is_code(connection: Connection, *, org: str | None, id: UUID) -> bool: ...


@sql
async def revoke_code(connection: Connection, *, id: UUID, at: datetime) -> None: ...


@sql
async def note_refusal(connection: Connection, *, id: UUID, refused_for: str, at: datetime) -> None: ...


@sql
async def seats_taken(connection: Connection, *, code: UUID) -> int: ...


@sql
async def seats_of(connection: Connection, *, org: str, at: datetime) -> int: ...


@sql
async def insert_site(
    connection: Connection,
    *,
    id: str,
    org: str,
    code: UUID,
    product: str,
    name: str | None,
    domain: str,
    key: str,
    kind: str,
    clone_of: str | None,
    activated_at: datetime,
) -> None: ...


@sql
async def find_site(connection: Connection, *, id: str) -> Site | None: ...


@sql
async def is_site(connection: Connection, *, org: str, id: str) -> bool: ...


@sql
async def lock_site(connection: Connection, *, id: str) -> Site | None: ...


@sql
async def at_domain(connection: Connection, *, org: str, product: str, domain: str) -> list[Site]: ...


@sql
async def of_key(connection: Connection, *, code: UUID, key: str) -> list[Site]: ...


@sql
async def staging_of(connection: Connection, *, org: str) -> list[Site]: ...


@sql
async def sites(
    connection: Connection, *, org: str, state: str | None, before: str | None, limit_rows: int
) -> list[Site]: ...


@sql
async def change_site(
    connection: Connection,
    *,
    id: str,
    code: UUID,
    name: str | None,
    domain: str,
    former_domain: str | None,
    key: str,
    kind: str,
    clone_of: str | None,
    state: str,
    ended_by: str | None,
    seen_at: datetime,
    ended_at: datetime | None,
) -> None: ...


@sql
async def insert_family(
    connection: Connection,
    *,
    id: str,
    site: str,
    tag_key: bytes,
    generation: int,
    digest: bytes,
    salt: bytes,
    attempt: bytes | None,
    rotated_at: datetime,
) -> None: ...


@sql
async def find_family(connection: Connection, *, id: str) -> RefreshFamily | None: ...


@sql
async def live_family(connection: Connection, *, site: str) -> RefreshFamily | None: ...


@sql
async def rotate_family(
    connection: Connection,
    *,
    id: str,
    generation: int,
    digest: bytes,
    salt: bytes,
    attempt: bytes | None,
    rotated_at: datetime,
) -> None: ...


@sql
async def end_family(connection: Connection, *, site: str, ended_by: str) -> None: ...


@sql
async def hand_over_family(connection: Connection, *, site: str, to: str) -> None: ...
