"""Frees what only refers to itself, often enough that it never adds up.

Python frees most objects at once, and leaves cycles to its collector. An exception that a frame still holds is such a
cycle, with all that its frames hold: asyncpg and redis-py make one for each connection that fails, and asyncpg's holds
a TLS context. The collector is called by the number of objects, which the control plane sets high for the writer's sake
(control/app.py): without a clock, what 91 faults of the stores left was 20 MiB, and none of it was freed.

glibc gives back to the system what is free at the end of its heap only. A few objects that live long, such as a
connection that was made while events waited, keep all that was freed below them.
"""

import asyncio
import ctypes
import gc
from collections.abc import Callable
from typing import Any, Final, cast

ROUND_SECONDS: Final = 10.0


def _of_glibc() -> Callable[[int], Any] | None:
    """https://man7.org/linux/man-pages/man3/malloc_trim.3.html; None where another C library is used."""
    try:
        return cast("Callable[[int], Any]", ctypes.CDLL(None).malloc_trim)
    except (AttributeError, OSError, TypeError):  # musl and macOS have none, and Windows no library of this name
        return None


_trim = _of_glibc()


class GarbageCollector:
    name = "garbage"

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            # What was there at the start is frozen and not looked at, so this is a look at what has come since.
            gc.collect()
            if _trim is not None:
                _trim(0)
