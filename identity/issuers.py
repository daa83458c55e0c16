"""The keys of all issuers that are trusted, each read and refreshed by itself."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from identity.keysets.keyset import KeySet
from identity.settings import Auth


class Issuers:
    """Call `start` before the first use, and `close` at the end."""

    def __init__(
        self,
        settings: Auth,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.key_sets = {each.issuer: KeySet.of(each, clock, sleep) for each in settings.trusted}
        """By the issuer's name."""

    @property
    def usable(self) -> bool:
        """Whether somebody can be let in: tokens of any issuer, or API keys where there is none. An issuer that is away
        is no reason to turn those of the others away."""
        return not self.key_sets or any(keys.usable for keys in self.key_sets.values())

    @property
    def keys_change(self) -> bool:
        """Whether there is anything to read: no more than that is what `run` does."""
        return any(keys.changes for keys in self.key_sets.values())

    @property
    def age_seconds(self) -> float | None:
        """Since the keys were last read, of the issuer where that is longest ago; None where none were read."""
        ages = [age for keys in self.key_sets.values() if (age := keys.age_seconds) is not None]
        return max(ages, default=None)

    async def start(self) -> None:
        """Reads all keys, and then again and again."""
        await asyncio.gather(*(keys.start() for keys in self.key_sets.values()))

    async def run(self) -> None:
        """As `start`, but runs until it is cancelled. A token before the first answer waits for that read."""
        async with asyncio.TaskGroup() as group:
            for keys in self.key_sets.values():
                if keys.changes:
                    group.create_task(keys.run())

    async def close(self) -> None:
        await asyncio.gather(*(keys.close() for keys in self.key_sets.values()))

    async def refresh_if_due(self, issuer: str) -> None:
        """Reads the keys of one issuer again, since a token fits none of them: `KeyRefreshDue.issuer`."""
        await self.key_sets[issuer].refresh_if_due()
