"""What was written is on the disk, also after a power cut."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Brings a file, or a folder's names, to the disk. Blocks; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
