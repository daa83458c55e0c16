"""How long a test waits for what must happen, and the waiting itself."""

import asyncio
from collections.abc import Callable
from typing import Protocol

PATIENCE_SECONDS = 30.0  # a test that waits longer has failed
PROCESS_SECONDS = 240.0  # for processes to start and to end: on a machine that is busy with ten others, a minute each


class Until(Protocol):
    """Waits until this holds."""

    async def __call__(self, holds: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None: ...


async def until(holds: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is waited for happens inside the gateway
            await asyncio.sleep(0.002)
