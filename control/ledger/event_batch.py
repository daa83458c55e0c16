"""Stream entries -> rows, counters and watermarks: what one transaction of the writer holds. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from control.ledger.streams import Entries, StreamId
from control.moments import moment
from control.region import ALONE, Region
from control.sql.usage import Quarantined
from quota.events import FIELD, EventMalformed, Kind, parse

EVENT_COLUMNS = (
    "org",
    "occurred_at",
    "stream_seq",
    "meter",
    "shard",
    "stream_ms",
    "kind",
    "request_id",
    "period_start",
    "units",
    "overage",
    "burnt",
    "key_id",
    "user_id",
    "taken_at",
)
EARLIER_COLUMNS = EVENT_COLUMNS[:12]
"""Those of archives of earlier releases."""

MS_COLUMN = EVENT_COLUMNS.index("stream_ms")
DAY_MS = 86_400_000
HOUR_SECONDS = 3600
MS_MAX = 253_402_300_799_999  # the end of the year 9999


class LimitedCharge(NamedTuple):
    """A charge, or a correction of one, that counts in quotas of the key's own."""

    org: str
    key_id: str
    meter: str
    period_start: int
    taken_at: int
    units: int


@dataclass(slots=True)
class EventBatch:
    region: Region = ALONE
    """Whose streams these are."""
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    """As `EVENT_COLUMNS`."""
    usage: dict[tuple[str, int, str], list[int]] = field(default_factory=dict)
    """(organization, period start, meter) -> used, burnt, overage."""
    grants: dict[tuple[str, str], int] = field(default_factory=dict)
    """(organization, grant) -> used."""
    keys_used: dict[str, int] = field(default_factory=dict)
    """Key -> millisecond of its last take."""
    limited: list[LimitedCharge] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    watermarks: dict[int, StreamId] = field(default_factory=dict)
    """The last entry of each shard that has any."""

    def add(self, shard: int, entries: Entries) -> None:
        """Takes in the next entries of one shard, in their order."""
        for raw_id, fields in entries:
            ms_text, _, seq_text = raw_id.partition(b"-")
            ms, seq = int(ms_text), int(seq_text)
            try:
                self._add(shard, ms, seq, fields)
            except (EventMalformed, UnicodeDecodeError) as e:
                self.quarantined.append(_poison(self.region.stored(shard), ms, seq, fields, str(e)))
        if entries:
            self.watermarks[shard] = StreamId.parse(entries[-1][0])

    @property
    def days(self) -> set[int]:
        """The days of the rows, counted from the epoch."""
        return {ms // DAY_MS for ms in {row[MS_COLUMN] for row in self.rows}}

    def limited_by_hour(self) -> dict[tuple[str, str, str, int, int], int]:
        """(organization, key, meter, period start, hour of the take, seconds) -> used."""
        used: dict[tuple[str, str, str, int, int], int] = {}
        for org, key_id, meter, period_start, taken_at, units in self.limited:
            counter = (org, key_id, meter, period_start, taken_at - taken_at % HOUR_SECONDS)
            used[counter] = used.get(counter, 0) + units
        return used

    def _add(self, shard: int, ms: int, seq: int, fields: Sequence[bytes]) -> None:
        if len(fields) != 2 or fields[0] != FIELD:
            raise EventMalformed(f"an entry has the one field {FIELD.decode()!r}: {fields[::2]}")
        if ms > MS_MAX or seq > self.region.seq_max:
            raise EventMalformed(f"the id is out of range: {ms}-{seq}")
        stored_shard, stored_seq = self.region.stored(shard), self.region.stored_seq(seq)
        kind, request_id, org, period_start, charges, user, key, at = parse(fields[1].decode("ascii"))
        occurred_at, starts = _at_ms(ms), _at(period_start)
        taken_at = None if at is None else _at(at)
        if key is not None and kind is Kind.TAKE:
            self.keys_used[key] = ms
        for meter, units, overage, burnt in charges:
            self.rows.append(
                (
                    org,
                    occurred_at,
                    stored_seq,
                    meter,
                    stored_shard,
                    ms,
                    kind,
                    request_id,
                    starts,
                    units,
                    overage,
                    dict(burnt) if burnt else None,
                    key,
                    user,
                    taken_at,
                )
            )
            if key is not None and at is not None:
                self.limited.append(LimitedCharge(org, key, meter, period_start, at, units))
            counter = self.usage.get((org, period_start, meter))
            if counter is None:
                counter = self.usage[org, period_start, meter] = [0, 0, 0]
            counter[0] += units
            counter[2] += overage
            for grant, n in burnt:
                counter[1] += n
                self.grants[org, grant] = self.grants.get((org, grant), 0) + n


@lru_cache(maxsize=4096)  # the events of one batch share milliseconds and periods
def _at_ms(ms: int) -> datetime:
    return moment(ms // 1000).replace(microsecond=ms % 1000 * 1000)


@lru_cache(maxsize=4096)
def _at(seconds: int) -> datetime:
    return moment(seconds)


def _poison(shard: int, ms: int, seq: int, fields: Sequence[bytes], reason: str) -> Quarantined:
    entry = b" ".join(b"%s=%s" % pair for pair in zip(fields[::2], fields[1::2], strict=True))
    return Quarantined(shard, ms, seq, entry, reason)
