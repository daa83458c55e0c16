"""A worker's process while it loads: its collector rests.

Nearly all that is made meanwhile stays, and would be walked again each time: a sixth of a start. This module is the
first that is imported there, so it imports little.
"""

import gc
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from pickle import loads
from typing import Any


class LoadingProcess(SpawnProcess):
    """Whoever runs in it calls `gc.enable()` when everything is there."""

    def __reduce__(self) -> tuple[Any, ...]:
        # In a pickle of their own, since what they are made of is imported when it is read.
        return _loaded, (bytes(ForkingPickler.dumps(self.__dict__)),)


def _loaded(attributes: bytes) -> LoadingProcess:
    """In the new process."""
    gc.disable()
    process = LoadingProcess()
    process.__dict__.update(loads(attributes))  # noqa: S301 - from our own supervisor
    return process
