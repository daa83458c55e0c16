"""The hash chain of the journal, as docs/audit.md defines it, checked seal by seal. Pure.

The seals are made in the database (`seal_audit_journal`). This is a second implementation, so that one proves the
other.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from control.moments import MICROSECOND
from control.sql.audit import SealedEntry

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGINNING = bytes(32)
"""What the first seal has for the hash of the one before."""


@dataclass(frozen=True, slots=True)
class ChainBroken:
    """The first thing that is wrong."""

    seq: int | None
    """None: it is not about a seal."""
    entry: str | None
    reason: str

    def __str__(self) -> str:
        at = f"seq {self.seq}" if self.seq is not None else "no seal"
        return f"{at}, entry {self.entry}: {self.reason}" if self.entry else f"{at}: {self.reason}"


def field(value: str | None) -> bytes:
    """A netstring (https://cr.yp.to/proto/netstrings.txt), or `-,` for NULL."""
    if value is None:
        return b"-,"
    octets = value.encode()
    return b"%d:%b," % (len(octets), octets)


def micros(at: datetime) -> str:
    return str((at - EPOCH) // MICROSECOND)


def hash_of(previous: bytes, row: SealedEntry) -> bytes:
    """The hash of a seal: `row` as the statement `seals` has it."""
    values = (
        str(row.seq),
        micros(row.sealed_at),
        row.id,
        None if row.at is None else micros(row.at),
        row.actor,
        row.action,
        row.org,
        row.before,
        row.after,
        row.correlation_id,
    )
    return sha256(previous + b"".join(map(field, values))).digest()


class Walk:
    """Walks along the chain, starting behind a seal that is believed."""

    def __init__(self, seq: int, hash_: bytes, latest: datetime | None, late_seconds: float) -> None:
        self.seq = seq
        """The number of the last good seal."""
        self.hash = hash_
        self._latest = latest or EPOCH
        """The latest time of the entries up to here. An entry later than its seal counts as of its seal: its clock was
        wrong."""
        self._late = timedelta(seconds=late_seconds)

    def step(self, row: SealedEntry) -> ChainBroken | None:
        """Checks the next seal; returns what is wrong with it."""
        seq, entry = row.seq, row.id
        if seq != self.seq + 1:
            gone = str(self.seq + 1) if seq == self.seq + 2 else f"{self.seq + 1} to {seq - 1}"
            return ChainBroken(self.seq + 1, None, f"missing: there is no seal {gone}, and there is a seal {seq}")
        if not row.in_journal or row.at is None:
            return ChainBroken(seq, entry, "missing: it was sealed, and is not in the journal")
        if hash_of(self.hash, row) != row.hash:
            return ChainBroken(seq, entry, "changed: its content, or its seal, is not what was sealed")
        if row.at + self._late < self._latest:
            # The oldest that waits is sealed first, however many wait, so it was not there then.
            contradiction = (
                f"it says {row.at.isoformat()}, and was sealed behind an entry of {self._latest.isoformat()}"
            )
            return ChainBroken(seq, entry, f"inserted afterwards: {contradiction}")
        self.seq, self.hash = seq, row.hash
        self._latest = max(self._latest, min(row.at, row.sealed_at))
        return None
