"""What was written is on the disk, also after a power cut, and a file that is replaced is never half of one."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def sync(path: Path) -> None:
    """Brings a file, or a folder's names, to the disk. Blocks; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path, *, synced: bool = True) -> Iterator[TextIO]:
    """A file of UTF-8 text that takes the place of `path`, and has its rights, when all of it is written. Where that
    fails or is cut off, what was there is there still. `synced`: and is on the disk then; one of many can do without.

    What is no file, such as a pipe, is written to as it is. Blocks; raises OSError."""
    path = path.resolve()  # a link goes on pointing at what it points at
    mode = path.stat().st_mode if path.exists() else None
    if mode is not None and not stat.S_ISREG(mode):
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            if mode is not None:
                unfinished.chmod(stat.S_IMODE(mode))
            yield file
        if synced:
            sync(unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if synced:
        sync(path.parent)


def replace_text(path: Path, text: str, *, synced: bool = True) -> None:
    """As `replacing`."""
    with replacing(path, synced=synced) as file:
        file.write(text)
