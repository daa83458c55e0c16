"""Time as a parameter. Code that needs the wall clock takes a `Clock`; tests hand in one that they move."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since the epoch, UTC."""

system_clock: Clock = time.time
