"""What only refers to itself is freed by the clock."""

import asyncio
import gc
import weakref

import pytest

from control import garbage
from control.garbage import GarbageCollector

DEADLINE_SECONDS = 60.0


class Held:
    """As an exception that its own frames hold."""

    itself: "Held"


@pytest.mark.parametrize("generation", [0, 2])
async def test_a_cycle_is_freed_although_few_objects_come_after_it(
    monkeypatch: pytest.MonkeyPatch, generation: int
) -> None:
    monkeypatch.setattr(garbage, "ROUND_SECONDS", 0.01)
    held = Held()
    held.itself = held
    if generation:
        gc.collect()  # it lives through a look, as what fails slowly does
    freed = asyncio.Event()
    watch = weakref.ref(held, lambda _: freed.set())
    gc.disable()
    try:
        del held
        assert watch() is not None, "it is a cycle"
        collecting = asyncio.create_task(GarbageCollector().run())
        await asyncio.wait_for(freed.wait(), DEADLINE_SECONDS)
        collecting.cancel()
    finally:
        gc.enable()
