"""Frees what only refers to itself, often enough that it never adds up.

Python frees most objects at once, and leaves cycles to its collector. An exception that a frame still holds is such a
cycle, with all that its frames hold: asyncpg and redis-py make one for each connection that fails, and asyncpg's holds
a TLS context. The collector is called by the number of objects, which the control plane sets high for the writer's sake
(control/app.py): without a clock, what 91 faults of the stores left was 20 MiB, and none of it was freed.
"""

import asyncio
import gc
from typing import Final

ROUND_SECONDS: Final = 10.0


class GarbageCollector:
    name = "garbage"

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            # What was there at the start is frozen and not looked at, so this is a look at what has come since.
            gc.collect()
