"""Whether a token or key may be used on the control API: keys and marks hold here as they do in gateways.

Redis says it, which every revocation has reached when it is answered. Where Redis is away, or does not know the
organization, Postgres does.
"""

from dataclasses import dataclass
from typing import Final

import structlog

from common.clock import Clock, system_clock
from common.networks import Networks, address_of
from control import sql
from control.access.keys import store
from control.db import Database
from control.entitlements.published_access import record_of_key
from identity.claims import Claims
from identity.refusals import Reason, TokenRefused
from quota.access import KeyRecord, KeyState, Mark, MarkKind, RecordMalformed, mark_value, marks_of, refusing
from quota.calls.look import IndexMiss
from quota.ledger import Ledger, LedgerUnavailable

log = structlog.get_logger()

_REVOKED: Final = {
    MarkKind.TOKEN: Reason.TOKEN_REVOKED,
    MarkKind.SESSION: Reason.SESSION_REVOKED,
    MarkKind.USER: Reason.USER_REVOKED,
    MarkKind.SITE: Reason.SITE_REVOKED,
    MarkKind.ORGANIZATION: Reason.ORGANIZATION_REVOKED,
}
_NOT_ACTIVE: Final = {KeyState.DISABLED: Reason.KEY_DISABLED, KeyState.REVOKED: Reason.KEY_REVOKED}


@dataclass(frozen=True, slots=True)
class KeyCaller:
    """Whom an API key speaks for."""

    org: str
    key_id: str
    user: str | None


class Standings:
    def __init__(self, db: Database, ledger: Ledger, clock: Clock = system_clock) -> None:
        """`ledger` is one whose Redis is vouched for when its connections are made: an older one would not know."""
        self._db = db
        self._ledger = ledger
        self._clock = clock

    async def check(self, claims: Claims) -> None:
        """Raises TokenRefused for a verified token that is revoked. Raises StoreUnavailable."""
        marks = marks_of(claims.token_id, claims.session, claims.user, claims.site)
        self._refuse_marked(await self._marks(claims.org, marks), claims.issued_at)

    async def key(self, digest16: bytes, address: str) -> KeyCaller:
        """Whom a key speaks for. A key with scopes opens nothing here: these are about what gateways forward.

        Raises TokenRefused, StoreUnavailable."""
        org, record = await self._record(digest16)
        if record.state is not KeyState.ACTIVE:
            raise TokenRefused(_NOT_ACTIVE[record.state])
        now = self._clock()
        if record.expires_s is not None and record.expires_s <= now:
            raise TokenRefused(Reason.KEY_EXPIRED)
        # A mark with a time refuses no key: those that it meant were revoked with it.
        self._refuse_marked(await self._marks(org, marks_of(user=record.user)), float("inf"))
        if record.networks and address_of(address) not in Networks(record.networks):
            raise TokenRefused(Reason.KEY_ADDRESS)
        if record.scopes:
            raise TokenRefused(Reason.KEY_SCOPE)
        return KeyCaller(org, record.id, record.user)

    @staticmethod
    def _refuse_marked(marks: dict[Mark, bytes], issued_at: float | None) -> None:
        mark = refusing(marks, issued_at)
        if mark is not None:
            raise TokenRefused(_REVOKED[mark.kind])

    async def _marks(self, org: str, marks: tuple[Mark, ...]) -> dict[Mark, bytes]:
        """Those of them that are set, with their values."""
        try:
            look = await self._ledger.look(org, marks=marks)
            if look.version is not None:
                return look.marks
        except LedgerUnavailable as e:
            log.info("whether a token is revoked is asked of postgres", reason=str(e))
        async with self._db.connection() as connection:
            rows = await sql.revocations.in_force(
                connection, org=org, kinds=[mark.kind.value for mark in marks], subjects=[mark.id for mark in marks]
            )
        return {
            Mark(MarkKind(row.kind), row.subject): mark_value(
                None if row.issued_until is None else int(row.issued_until.timestamp())
            )
            for row in rows
        }

    async def _record(self, digest16: bytes) -> tuple[str, KeyRecord]:
        try:
            org = await self._ledger.owner(digest16)
            if org is IndexMiss.NO_KEY:
                raise TokenRefused(Reason.KEY_UNKNOWN)
            if isinstance(org, str):
                look = await self._ledger.look(org, digest16)
                if look.record is not None:
                    return org, look.record
                if look.version is not None:
                    raise TokenRefused(Reason.KEY_UNKNOWN)
        except (LedgerUnavailable, RecordMalformed) as e:
            log.info("whose a key is, is asked of postgres", reason=str(e))
        key = await store.by_digest(self._db, digest16)
        if key is None or key.dropped_at is not None:
            raise TokenRefused(Reason.KEY_UNKNOWN)
        return key.org, record_of_key(key)
