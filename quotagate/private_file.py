"""Files that only their owner can read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from quotagate.failure import CommandFailed


@contextmanager
def new_private_file(path: Path) -> Iterator[TextIO]:
    """A new file; where what follows fails, it is gone again, and its name is free for the next try.

    Raises CommandFailed where it cannot be made, also because it exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as e:
        raise CommandFailed(f"{path} cannot be made: {e.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        try:
            yield file
        except BaseException:
            path.unlink()
            raise
