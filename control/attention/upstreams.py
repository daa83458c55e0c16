"""Targets of upstreams that gateways leave out: an incident for each upstream and target, for as long as a worker of a
gateway says so, and one for each upstream that has no target left.

Each control plane listens for itself, and they agree by what is in the database. One that could not listen for a while
closes nothing until each gateway has had the time to say again what is so.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from common.clock import Clock
from control import incidents, sql
from control.db import Database
from control.moments import moment, rfc3339
from quota import keys
from quota.ledger import LedgerUnavailable
from quota.upstream_faults import FIELD, REPORTS_MAX, SILENT_SECONDS, Fault, Outage, Report, ReportMalformed, decode

log = structlog.get_logger()

EJECTED: Final = "upstream_ejected"
UNAVAILABLE: Final = "upstream_unavailable"
LOOK_SECONDS: Final = 0.25  # with what a gateway waits before it tells, the tile is less than a second late
STORE_LOOK_SECONDS: Final = 5.0  # what others have left open is found so soon while no gateway says anything
SEEN_SECONDS: Final = 10.0  # an incident's last sight is renewed so often
GATEWAYS_MAX: Final = 20  # that an incident names

Name = tuple[str, str]
"""Kind and key of an incident."""


@dataclass(slots=True)
class _Heard:
    entry: bytes
    at: float
    """By `time`."""
    report: Report


class Listening:
    """What each worker said last, and since when all of them have been listened to."""

    def __init__(self, redis: Redis | RedisCluster, time: Callable[[], float]) -> None:
        self._redis: Any = redis
        self._time = time
        self._heard: dict[str, _Heard] = {}
        self._read_to = b"-"
        self._looked_at = time()
        self._sure_from = time() + SILENT_SECONDS

    @property
    def is_sure(self) -> bool:
        """Whether every worker that has a fault was heard."""
        return self._time() >= self._sure_from

    async def look(self) -> list[Report]:
        """The last report of each worker that still tells of a fault. Raises LedgerUnavailable."""
        entries = await self._read()
        now = self._time()
        if now - self._looked_at > SILENT_SECONDS / 2:  # what was said meanwhile may be gone
            self._sure_from = now + SILENT_SECONDS
            for heard in self._heard.values():
                heard.at = now
        self._looked_at = now
        for entry, report in entries:
            known = self._heard.get(report.source)
            if known is None or known.entry != entry:
                self._heard[report.source] = _Heard(entry, now, report)
        self._heard = {
            source: heard
            for source, heard in self._heard.items()
            if heard.report.faults and now - heard.at <= SILENT_SECONDS
        }
        return [heard.report for heard in self._heard.values()]

    async def _read(self) -> list[tuple[bytes, Report]]:
        """What is new, the newest of each worker."""
        start = self._read_to if self._read_to == b"-" else b"(" + self._read_to
        try:
            entries = await self._redis.xrevrange(keys.UPSTREAM_FAULTS, "+", start, count=REPORTS_MAX)
        except RedisError as e:
            raise LedgerUnavailable(f"reading reports of gateways: {e}") from e
        # Where nothing is new, the next look reads all: the ids of a Redis that took over may begin earlier.
        self._read_to = entries[0][0] if entries else b"-"
        newest: dict[str, tuple[bytes, Report]] = {}
        for entry, fields in entries:
            try:
                report = decode(fields[FIELD])
            except (ReportMalformed, KeyError) as e:
                log.error("an entry of the stream of upstream faults is no report", reason=str(e))
                continue
            newest.setdefault(report.source, (entry, report))
        return list(newest.values())


class UpstreamWatch:
    name = "upstreams"

    def __init__(
        self, db: Database, redis: Redis | RedisCluster, clock: Clock, time: Callable[[], float] | None = None
    ) -> None:
        """`time`: seconds that only pass; None: the loop's."""
        self._db = db
        self._prefix = db.region.incident_prefix
        self._clock = clock
        self._time = time or asyncio.get_running_loop().time
        self._listening = Listening(redis, self._time)
        self._store_look_at = 0.0
        self._any_open = True

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        told = contents(await self._listening.look())
        wanted = {(kind, self._prefix + key): content for (kind, key), content in told.items()}
        now = self._time()
        if not wanted and not self._any_open and now < self._store_look_at:
            return
        self._store_look_at = now + STORE_LOOK_SECONDS
        async with self._db.connection() as connection:
            shown = await sql.incidents.open_of_kinds(connection, kinds=[EJECTED, UNAVAILABLE], prefix=self._prefix)
        self._any_open = bool(shown)
        if self._changes({(each.kind, each.key): each.content for each in shown}, wanted):
            await self._update(wanted)
            self._any_open = True
        elif shown and self._clock() - min(each.last_seen_at.timestamp() for each in shown) > SEEN_SECONDS:
            async with self._db.connection() as connection:
                for kind, key in wanted:
                    await sql.incidents.mark_seen(connection, kind=kind, key=key, at=moment(self._clock()))

    def _changes(self, shown: Mapping[Name, Mapping[str, Any]], wanted: Mapping[Name, Mapping[str, Any]]) -> set[Name]:
        """Those to be opened or renewed, and those to be closed."""
        changed = {name for name, content in wanted.items() if shown.get(name) != content}
        return changed | (shown.keys() - wanted.keys() if self._listening.is_sure else set())

    async def _update(self, wanted: Mapping[Name, dict[str, Any]]) -> None:
        now = self._clock()
        async with self._db.transaction() as connection:
            await sql.incidents.take_turns(connection, kind=EJECTED)
            rows = await sql.incidents.open_of_kinds(connection, kinds=[EJECTED, UNAVAILABLE], prefix=self._prefix)
            shown = {(row.kind, row.key): row.content for row in rows}
            for kind, key in sorted(self._changes(shown, wanted)):
                content = wanted.get((kind, key))
                if content is None:
                    log.info("an upstream is well again", incident=kind, about=key)
                    await incidents.close(connection, now, kind, key)
                elif (kind, key) in shown:
                    await sql.incidents.renew(connection, kind=kind, key=key, content=content, at=moment(now))
                else:
                    log.error("an upstream fails", incident=kind, about=key, why=content.get("why"))
                    await incidents.open(connection, now, kind, key, None, content)


def contents(reports: Iterable[Report]) -> dict[Name, dict[str, Any]]:
    """What incidents there are to be, by what workers say. Pure."""
    targets: dict[Name, list[tuple[Report, Fault]]] = {}
    upstreams: dict[Name, list[tuple[Report, Outage]]] = {}
    for report in reports:
        for fault in report.faults:
            targets.setdefault((EJECTED, f"{fault.upstream} {fault.target}"), []).append((report, fault))
        for outage in report.outages:
            upstreams.setdefault((UNAVAILABLE, outage.upstream), []).append((report, outage))
    return {name: _of_target(told) for name, told in targets.items()} | {
        name: _of_upstream(told) for name, told in upstreams.items()
    }


def _of_target(told: list[tuple[Report, Fault]]) -> dict[str, Any]:
    first = min(told, key=lambda each: (each[1].since_ms, each[0].source))[1]
    until_ms = [fault.until_ms for _, fault in told if fault.until_ms is not None]
    return {
        "upstream": first.upstream,
        "target": first.target,
        "state": min(fault.state for _, fault in told),  # ejected, if one says so
        "why": first.why,
        "since": _time(first.since_ms),
        "until": _time(min(until_ms)) if until_ms else None,
        **_seen_by(report for report, _ in told),
    }


def _of_upstream(told: list[tuple[Report, Outage]]) -> dict[str, Any]:
    return {
        "upstream": told[0][1].upstream,
        "requests": "refused with 503" if any(outage.refused for _, outage in told) else "tried all the same",
        "since": _time(min(outage.since_ms for _, outage in told)),
        **_seen_by(report for report, _ in told),
    }


def _seen_by(reports: Iterable[Report]) -> dict[str, Any]:
    reports = list(reports)
    return {"gateways": sorted({report.gateway for report in reports})[:GATEWAYS_MAX], "workers": len(reports)}


def _time(ms: int) -> str | None:
    with suppress(ValueError, OverflowError, OSError):  # a gateway's clock says anything
        return rfc3339(ms / 1000)
    return None
