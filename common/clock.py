"""Time as a parameter. Code that needs the wall clock takes a `Clock`; tests pass one that they control."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since the epoch, UTC."""

system_clock: Clock = time.time
