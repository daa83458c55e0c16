"""Makes and retires signing keys as time passes, and tells an admin when one cannot be read."""

import asyncio
from typing import Final

import structlog

from common.clock import Clock
from control import incidents
from control.access.issuing.issuer import Issuer
from control.access.issuing.store import SigningKeyUnreadable
from control.db import Database
from control.journal import Author

log = structlog.get_logger()

ROUND_SECONDS: Final = 10.0
INCIDENT: Final = "signing_key_unreadable"
AUTHOR: Final = Author("signing keys", "signing keys")


class Rotation:
    """Several control planes may run one each: a change is made by one of them."""

    name = "signing keys"

    def __init__(self, db: Database, issuer: Issuer, clock: Clock) -> None:
        self._db = db
        self._issuer = issuer
        self._clock = clock
        self._reported: str | None = None

    async def start(self) -> None:
        """There is a key, and what is in use can be read. Raises StoreUnavailable, SigningKeyUnreadable."""
        await self._issuer.keys.allow_token_seconds()
        await self._change()
        for reason in await self._issuer.unreadable_keys():
            raise reason

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        while True:
            await self.round()
            await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> None:
        await self._change()
        await self._report(await self._issuer.unreadable_keys())

    async def _change(self) -> None:
        made = await self._issuer.keys.rotate_if_due(AUTHOR)
        retired = await self._issuer.keys.retire_leaving(AUTHOR)
        if made is not None or retired:
            self._issuer.forget()
            log.info("signing keys have changed", made=made and made.id, retired=retired)

    async def _report(self, reasons: list[SigningKeyUnreadable]) -> None:
        """Opens one incident while something is wrong, and closes it afterwards."""
        text = "; ".join(map(str, reasons))
        if text == self._reported:
            return
        async with self._db.transaction() as connection:
            if text:
                await incidents.open(connection, self._clock(), INCIDENT, "signing keys", None, {"reason": text})
            else:
                await incidents.close(connection, self._clock(), INCIDENT, "signing keys")
        if text:
            log.error("a signing key cannot be read", reason=text)
        self._reported = text
