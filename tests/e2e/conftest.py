from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Command, Eventually, StartUp, Up, run_quotagate, wait_for


@pytest.fixture
def quotagate() -> Command:
    return run_quotagate


@pytest.fixture
def eventually() -> Eventually:
    return wait_for


@pytest.fixture
def up(stack_directory: Path) -> Iterator[StartUp]:
    """Starts a stack of its own on a data directory of this name; whatever still runs at the end is stopped."""
    started: list[Up] = []

    def start(name: str, *flags: str) -> Up:
        started.append(Up(stack_directory / name, *flags))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture(scope="session")
def stack(stack_directory: Path) -> Iterator[Up]:
    """The stack that most tests share, with two gateway processes."""
    running = Up(stack_directory / "shared", "--workers", "2")
    yield running
    running.stop()
