"""Several calls at once, but not all of them: each takes a connection."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def at_once(limit: int, calls: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """What they return, in their order. Raises the first error; none of the others goes on then."""
    free = asyncio.Semaphore(limit)

    async def run(call: Callable[[], Awaitable[T]]) -> T:
        async with free:
            return await call()

    tasks = [asyncio.create_task(run(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
