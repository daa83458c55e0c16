"""A backup on a disk: a directory whose files are all there and unchanged, or no backup.

`<table>.csv.gz` is a table, as PostgreSQL's COPY writes it. `redis-events.jsonl.gz` has the usage events that
PostgreSQL did not have yet, `redis-marks.jsonl.gz` what must not be done again. `manifest.json` says what it is of.
`SHA256SUMS` has the sum of each of them, so that `sha256sum --check SHA256SUMS` finds damage, too. Whoever can write to
the directory can make other sums: the journal's chain says whether somebody did (docs/audit.md).
"""

import gzip
import hashlib
import io
import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from common.durable_files import sync
from control.backup.watching import WatchedFile
from control.progress import Tick, unwatched

FORMAT: Final = 1
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
EVENTS, MARKS = "redis-events", "redis-marks"
CHUNK_BYTES = 1 << 20
GZIP_LEVEL = 6


class BackupRefused(Exception):
    """It cannot be made, or cannot be restored; the message says why. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Rows:
    columns: list[str]
    rows: int


@dataclass(frozen=True, slots=True)
class Manifest:
    release: str
    schema: str
    """The newest migration that the database had seen."""
    taken_at: str
    """The point, by Redis' clock: what was admitted before is in the backup."""
    shards: int
    journal_head: str
    """As `quotagate audit verify` prints it."""
    tables: dict[str, Rows]
    partitions: dict[str, list[str]]
    """The days of partitioned tables."""
    sequences: dict[str, int]
    events: int
    """Of Redis, that PostgreSQL did not have yet."""
    marks: int

    @classmethod
    def parse(cls, text: str) -> "Manifest":
        """Raises BackupRefused."""
        try:
            content = json.loads(text)
            if content.pop("format") != FORMAT:
                raise BackupRefused("the backup is of a format that this release does not know")
            tables = {name: Rows(**rows) for name, rows in content.pop("tables").items()}
            return cls(tables=tables, **content)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise BackupRefused(f"{MANIFEST} is no manifest of a backup: {e}") from e

    def __str__(self) -> str:
        return json.dumps({"format": FORMAT} | asdict(self), indent=2) + "\n"


class BackupWriter:
    """Has its name only when it is complete and on the disk; before, it is `<name>.unfinished`."""

    def __init__(self, directory: Path) -> None:
        """Raises BackupRefused where there is something already, OSError."""
        if directory.exists():
            raise BackupRefused(f"{directory} exists already")
        self._directory = directory
        self._unfinished = directory.with_name(directory.name + ".unfinished")
        shutil.rmtree(self._unfinished, ignore_errors=True)  # of a run that was killed
        self._unfinished.mkdir(mode=0o700, parents=True)

    @contextmanager
    def packed(self, name: str) -> Iterator[BinaryIO]:
        """A file whose content is compressed."""
        path = self._unfinished / f"{name}.gz"
        with path.open("xb") as raw, gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as file:
            yield cast("BinaryIO", file)

    def finish(self, manifest: Manifest, tick: Tick) -> None:
        """`tick` is told of packed bytes."""
        (self._unfinished / MANIFEST).write_text(str(manifest), encoding="utf-8")
        files = sorted(self._unfinished.iterdir())
        sums = "".join(f"{_sum(file, tick)}  {file.name}\n" for file in files)
        (self._unfinished / SUMS).write_text(sums, encoding="utf-8")
        for path in (*files, self._unfinished / SUMS, self._unfinished):
            sync(path)
        self._unfinished.rename(self._directory)
        sync(self._directory.parent)

    @property
    def size(self) -> int:
        """Bytes that are written so far."""
        return size_of(self._unfinished)

    def abandon(self) -> None:
        shutil.rmtree(self._unfinished, ignore_errors=True)


def size_of(directory: Path) -> int:
    """Bytes of all files; 0 where there is no such directory. Raises OSError."""
    return sum(file.stat().st_size for file in directory.iterdir()) if directory.is_dir() else 0


def checked(directory: Path, tick: Tick) -> Manifest:
    """The manifest of a backup that is whole. Reads every byte of it. Raises BackupRefused, OSError."""
    try:
        lines = (directory / SUMS).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError) as e:
        raise BackupRefused(f"{directory} is no backup: it has no {SUMS} that can be read") from e
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    there = {file.name for file in directory.iterdir()} - {SUMS}
    if missing := sums.keys() - there:
        raise BackupRefused(f"the backup is damaged: {', '.join(sorted(missing))} is missing")
    if strange := there - sums.keys():
        raise BackupRefused(f"the backup is damaged: {', '.join(sorted(strange))} does not belong to it")
    for name, digest in sums.items():
        if _sum(directory / name, tick) != digest:
            raise BackupRefused(f"the backup is damaged: {name} is not what was written")
    if MANIFEST not in sums:
        raise BackupRefused(f"the backup is damaged: {MANIFEST} is missing")
    manifest = Manifest.parse((directory / MANIFEST).read_text(encoding="utf-8"))
    needed = {f"{name}.csv.gz" for name in manifest.tables} | {f"{name}.jsonl.gz" for name in (EVENTS, MARKS)}
    if needed != there - {MANIFEST}:
        raise BackupRefused("the backup is damaged: its files are not those that the manifest names")
    return manifest


@contextmanager
def unpacked(directory: Path, name: str, tick: Tick = unwatched) -> Iterator[BinaryIO]:
    """`tick` is told of packed bytes. Raises BackupRefused where it cannot be unpacked."""
    try:
        with (
            io.BufferedReader(WatchedFile(directory / f"{name}.gz", tick), CHUNK_BYTES) as packed,
            gzip.GzipFile(fileobj=packed) as file,
        ):
            yield cast("BinaryIO", file)
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise BackupRefused(f"the backup is damaged: {name}.gz cannot be unpacked: {e}") from e


def line_of(values: Sequence[Any]) -> bytes:
    """Texts of Redis are bytes: each is one character here."""
    return json.dumps([_as_text(value) for value in values], separators=(",", ":")).encode() + b"\n"


def values_of(line: bytes) -> list[Any]:
    return [value.encode("latin-1") if isinstance(value, str) else value for value in json.loads(line)]


def _as_text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _sum(file: Path, tick: Tick) -> str:
    digest = hashlib.sha256()
    with WatchedFile(file, tick) as content:
        buffer = memoryview(bytearray(CHUNK_BYTES))
        while count := content.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
