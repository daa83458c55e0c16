"""What happens to gateways: they read their settings again, or one after the other is replaced."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench.soak.processes import START_SECONDS, Part
from bench.soak.traffic import Books

READ_AGAIN = "settings read again"  # in a gateway's log, when its new workers serve
LOOK_SECONDS = 0.05

Restart = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """What was done under load, and what it has cost."""

    about: str
    seconds: float
    calls: int
    failed: int


async def reload(gateways: Sequence[Part]) -> None:
    """All of them at once; each replaces its workers one by one. Raises TimeoutError."""
    before = [gateway.logged(READ_AGAIN) for gateway in gateways]
    for gateway in gateways:
        gateway.signal(signal.SIGHUP)
    async with asyncio.timeout(START_SECONDS):
        for gateway, count in zip(gateways, before, strict=True):
            while gateway.logged(READ_AGAIN) == count:  # noqa: ASYNC110 - a file rings no bell
                await asyncio.sleep(LOOK_SECONDS)


async def replace(parts: Sequence[Part]) -> None:
    """One after the other ends, by SIGTERM, and starts again. Raises TimeoutError, StackError."""
    for part in parts:
        await asyncio.to_thread(part.leave)
        await asyncio.to_thread(part.start)


async def taken(about: str, books: Books, until: float, restart: Restart) -> Step:
    """`until`: loop time that the step lasts for at least, what it did included."""
    loop = asyncio.get_running_loop()
    began, calls, failed = time.monotonic(), books.statuses.total(), books.failed
    await restart()
    seconds = time.monotonic() - began
    await asyncio.sleep(max(0.0, until - loop.time()))
    step = Step(about, seconds, books.statuses.total() - calls, books.failed - failed)
    print(f"{step.about:50} {step.seconds:6.1f} s  {step.calls:7,} calls, {step.failed} failed", flush=True)
    return step
