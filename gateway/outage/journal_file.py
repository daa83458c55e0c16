"""The journal on local disk: requests that were forwarded without a take, until the ledger has them.

One line for each, `<crc32> <request id> <path> <milliseconds since the epoch> <meter>:<units> …`. A file has
one writer, which holds its lock (flock) for as long as it writes. The kernel drops the lock with the process, so a file
that can be locked is nobody's: whoever locks it replays it and removes it.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from common import durable_files
from quota.access import PATH_PATTERN, org_of
from quota.keys import METER_PATTERN

SUFFIX = ".journal"
KEPT = "kept-"  # begins the name of a file whose entries wait for their organizations, not for Redis
_LINE = re.compile(
    rf"(?P<id>[!-~]{{1,200}}) (?P<path>{PATH_PATTERN}) (?P<at>[0-9]{{1,15}})"
    rf"(?P<charges>(?: {METER_PATTERN[1:-1]}:[0-9]{{1,13}})+)\Z"
)


class JournalEntry(NamedTuple):
    request_id: str
    path: str
    """Who is charged (`access.Path`)."""
    at_ms: int
    """When it was forwarded, by this machine's clock: for people. The ledger goes by its own."""
    charges: tuple[tuple[str, int], ...]

    @property
    def org(self) -> str:
        return org_of(self.path)

    def line(self) -> bytes:
        charges = " ".join(f"{meter}:{units}" for meter, units in self.charges)
        text = f"{self.request_id} {self.path} {self.at_ms} {charges}".encode()
        return b"%08x %b\n" % (crc32(text), text)


def parse(line: bytes) -> JournalEntry | None:
    """An entry, or None for what is not a whole one."""
    crc, _, text = line.partition(b" ")
    if crc != b"%08x" % crc32(text) or (match := _LINE.match(text.decode("ascii", "replace"))) is None:
        return None
    request_id, at_ms, charges = match.group("id", "at", "charges")
    pairs = (charge.split(":") for charge in charges.split())
    return JournalEntry(request_id, match["path"], int(at_ms), tuple((meter, int(units)) for meter, units in pairs))


def _create(directory: Path, name: str) -> int:
    """A descriptor of a new file that is locked before it has its name, so that nobody can take it for an orphan."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o750)
    path = directory / f"{name}.new"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.rename(directory / f"{name}{SUFFIX}")
    except OSError:
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()
        raise
    return descriptor


def _new_name() -> str:
    return f"{os.getpid()}-{os.urandom(6).hex()}"


def sync(descriptor: int, directory: Path) -> None:
    """Brings a file and its name to the disk, and closes the descriptor. Blocks; raises OSError."""
    try:
        _sync(descriptor, directory)
    finally:
        os.close(descriptor)


def _sync(descriptor: int, directory: Path) -> None:
    os.fdatasync(descriptor)
    durable_files.sync(directory)  # of the file's name


class Journal:
    """The file that this worker writes. It begins with the first entry of an outage and is handed over after it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._descriptor: int | None = None
        self._name = ""
        self._size = 0  # bytes of whole entries
        self._unsynced = False
        self.entries = 0
        """Of the file that is open."""

    def prepare(self) -> None:
        """Raises OSError where no journal can be written."""
        name = _new_name()
        descriptor = _create(self.directory, name)
        (self.directory / f"{name}{SUFFIX}").unlink()
        os.close(descriptor)

    def append(self, lines: list[bytes]) -> None:
        """All or none of these are in the journal, safe from the end of this process. Raises OSError."""
        if self._descriptor is None:
            self._name = _new_name()
            self._descriptor = _create(self.directory, self._name)
            self._size = self.entries = 0
        data = b"".join(lines)
        try:
            if os.write(self._descriptor, data) < len(data):
                raise OSError("the disk is full")
        except OSError:
            # What is there of them is not forwarded, so it must not be charged.
            try:
                os.ftruncate(self._descriptor, self._size)
            except OSError:
                self.hand_over()  # the next entry must not follow half a line
            raise
        self._size += len(data)
        self.entries += len(lines)
        self._unsynced = True

    def unsynced(self) -> int | None:
        """A descriptor of a file with entries that a loss of power would take, for `sync`."""
        if self._descriptor is None or not self._unsynced:
            return None
        self._unsynced = False
        return os.dup(self._descriptor)  # the file may be handed over before it is synced

    def hand_over(self) -> Path | None:
        """Ends the file and drops its lock; None where there is none."""
        if self._descriptor is None:
            return None
        os.close(self._descriptor)
        self._descriptor = None
        self.entries = 0
        return self.directory / f"{self._name}{SUFFIX}"


@dataclass(slots=True)
class ClaimedFile:
    """A file whose writer is gone, locked by us."""

    path: Path
    descriptor: int
    entries: list[JournalEntry]
    torn: int
    """Lines that are no whole entries."""

    def release(self) -> None:
        os.close(self.descriptor)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.release()

    @property
    def waits_for_organizations(self) -> bool:
        """Its entries were not charged when they were replayed: Redis does not know who pays."""
        return self.path.name.startswith(KEPT)

    def shorten(self, entries: list[JournalEntry]) -> None:
        """Puts a file of these entries alone in the place of this one. Raises OSError with the old one in place."""
        directory, name = self.path.parent, f"{KEPT}{_new_name()}"
        descriptor = _create(directory, name)
        path = directory / f"{name}{SUFFIX}"
        try:
            data = b"".join(entry.line() for entry in entries)
            if os.write(descriptor, data) < len(data):
                raise OSError("the disk is full")
            _sync(descriptor, directory)
        except OSError:
            path.unlink()
            os.close(descriptor)
            raise
        self.remove()
        self.path, self.descriptor, self.entries = path, descriptor, entries


def claim(directory: Path) -> Iterator[ClaimedFile]:
    """The files that nobody writes or replays. Raises OSError for a directory that cannot be read."""
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another worker was faster
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = path.stat().st_ino == os.fstat(descriptor).st_ino  # not one that was replaced or removed meanwhile
            lines = path.read_bytes().split(b"\n") if ours else []
        except OSError:
            ours = False
        if not ours:
            os.close(descriptor)
            continue
        parsed = [parse(line) for line in lines if line]
        entries = [entry for entry in parsed if entry is not None]
        yield ClaimedFile(path, descriptor, entries, len(parsed) - len(entries))
