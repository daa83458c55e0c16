"""What only refers to itself is freed by the clock, and what is free is given back to the system."""

import asyncio
import gc
import os
import weakref

import pytest

from bench.harness import resident_bytes
from control import garbage
from control.garbage import GarbageCollector

DEADLINE_SECONDS = 60.0
PIECE_BYTES, PIECES = 8_000, 4_000  # larger than what Python allocates by itself, smaller than a mapping


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


@pytest.mark.skipif(garbage._trim is None, reason="only glibc can be told to give back memory")
async def test_what_is_freed_below_something_that_stays_is_given_back_to_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(garbage, "ROUND_SECONDS", 0.01)
    peak = [bytes(PIECE_BYTES) for _ in range(PIECES)]
    stays = [peak[at] for at in range(0, PIECES, 100)] + [peak[-1]]
    del peak
    kept = resident_bytes(os.getpid())
    collecting = asyncio.create_task(GarbageCollector().run())
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while resident_bytes(os.getpid()) > kept - PIECES * PIECE_BYTES // 2:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
    finally:
        collecting.cancel()
    assert stays
