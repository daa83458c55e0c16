"""Where compiled modules are: in a directory named for the sources that they were made of, and for the Python.

So an edited source is never served by what was built of it before. In a checkout and in a wheel it is the same place.
"""

import os
from hashlib import blake2b
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final, NamedTuple

from compiled.modules import HOT, PACKAGES

ROOT: Final = Path(__file__).parent.parent
BUILT: Final = Path(__file__).parent / "built"
GROUP: Final = "quotagate"
LIBRARY: Final = f"{GROUP}__mypyc"
"""mypyc's name for what holds all modules of a group."""
LIBRARY_FILE: Final = f"{LIBRARY}{EXTENSION_SUFFIXES[0]}"
MANIFEST: Final = "manifest"


class Manifest(NamedTuple):
    """What the builder says of what it has built."""

    library_bytes: int
    """A file that was cut must not be mapped: reading beyond its end would kill the process."""
    built_with: str

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Raises OSError and ValueError."""
        library_bytes, built_with = (directory / MANIFEST).read_text().splitlines()
        return cls(int(library_bytes), built_with)

    def write(self, directory: Path) -> None:
        (directory / MANIFEST).write_text(f"{self.library_bytes}\n{self.built_with}\n")


def directory_for(root: Path = ROOT) -> Path:
    """Where the modules are that were built of the sources below `root`, if they were."""
    return BUILT / digest(root)


def digest(root: Path) -> str:
    """Of the sources as they are now. It takes some milliseconds; times of files would say less."""
    state = blake2b(" ".join((EXTENSION_SUFFIXES[0], *HOT)).encode(), digest_size=10)
    for package in PACKAGES:
        for folder, folders, files in os.walk(root / package):
            folders.sort()
            for name in sorted(files):
                if name.endswith(".py"):
                    with open(f"{folder}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - a Path each would cost more than the reading
                        source = file.read()
                    state.update(b"%d %b " % (len(source), name.encode()))
                    state.update(source)
    return state.hexdigest()
