"""How much of a file was read is told to who waits for a backup or a restore."""

import io
from pathlib import Path
from typing import Any

from control.progress import Tick


class WatchedFile(io.FileIO):
    """Tells how many bytes of it were read."""

    def __init__(self, path: Path, tick: Tick) -> None:
        super().__init__(path)
        self._tick = tick

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self._tick(count or 0)
        return count
