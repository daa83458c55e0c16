"""The limits of API keys' own, as they were at each moment: what a key has now, and what the journal says it had."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from control import sql
from control.access.keys.terms import quotas_of
from control.db import Connection
from control.entitlements.rates import rate_of
from control.moments import moment
from control.sql.what_if import KeyChange
from quota.access import PERIOD, Quota
from quota.evaluation import Window
from quota.terms import OwnLimits, Pace


@dataclass(frozen=True, slots=True)
class Lives:
    """Of one key: from when on which limits were in force."""

    starts: Sequence[float]
    limits: Sequence[OwnLimits]


@dataclass(frozen=True, slots=True)
class KeyLimits:
    lives: Mapping[str, Lives] = field(default_factory=dict)
    """By key, of those that have or had limits."""

    def of(self, key: str | None, at: float) -> tuple[OwnLimits, ...]:
        if key is None or (lives := self.lives.get(key)) is None:
            return ()
        limits = lives.limits[max(0, bisect_right(lives.starts, at) - 1)]
        return (limits,) if limits.quotas or limits.rate is not None else ()

    def changed(self, other: Mapping[str, OwnLimits]) -> "KeyLimits":
        """The same, where these keys had other limits all the time."""
        return KeyLimits({**self.lives, **{key: Lives((0.0,), (limits,)) for key, limits in other.items()}})


async def read(connection: Connection, org: str, keys: Collection[str]) -> KeyLimits:
    """Of these keys. Those that are gone had none that is known."""
    ids = sorted(keys)
    now = {row.id: row for row in await sql.what_if.keys(connection, org=org, ids=ids)}
    changes: dict[str, list[KeyChange]] = {}
    for change in await sql.what_if.key_changes(connection, org=org, ids=list(now)):
        changes.setdefault(change.id, []).append(change)
    lives = {}
    for key, row in now.items():
        rate = rate_of(row.rate_requests, row.rate_seconds, row.rate_burst)
        last = OwnLimits(f"k:{key}", quotas_of(row.quotas), Pace.of(rate))
        of_key = _lives(key, last, changes.get(key, ()))
        if any(limits.quotas or limits.rate is not None for limits in of_key.limits):
            lives[key] = of_key
    return KeyLimits(lives)


async def windows_before(
    connection: Connection, org: str, limits: KeyLimits, since: datetime
) -> dict[Window, tuple[int, int]]:
    """What was used before that moment, of the windows that it is within."""
    at, starts = int(since.timestamp()), dict[tuple[str, int], int]()
    for key, lives in limits.lives.items():
        for quota in (quota for each in lives.limits for quota in each.quotas):
            if quota.window_seconds != PERIOD:
                starts[key, quota.window_seconds] = at - at % quota.window_seconds
    wanted = [(key, seconds, start) for (key, seconds), start in starts.items() if start < at]
    rows = await sql.what_if.key_windows(
        connection,
        org=org,
        ids=[key for key, _, _ in wanted],
        seconds=[seconds for _, seconds, _ in wanted],
        starts=[moment(start) for _, _, start in wanted],
        before=since,
    )
    return {(f"k:{row.id}", row.meter, row.seconds): (starts[row.id, row.seconds], row.used) for row in rows}


def _lives(key: str, last: OwnLimits, changes: Iterable[KeyChange]) -> Lives:
    """`changes`: the newest first, each with what was before it."""
    starts, limits = list[float](), [last]
    for change in changes:
        starts.append(change.at.timestamp())
        limits.append(_journaled(key, change.before))
    return Lives((0.0, *reversed(starts)), tuple(reversed(limits)))


def _journaled(key: str, content: Mapping[str, Any]) -> OwnLimits:
    """As control/access/keys/terms.py writes it."""
    rate = content.get("rate")
    pace = None if rate is None else Pace.of(rate_of(rate["requests"], rate["seconds"], rate["burst"]))
    return OwnLimits(f"k:{key}", tuple(Quota(**each) for each in content.get("quotas", ())), pace)


def current_windows(own: Iterable[OwnLimits], meter: str) -> set[tuple[str, int]]:
    """Node and seconds of those that a charge of the meter moves."""
    return {(each.node, quota.window_seconds) for each in own for quota in each.quotas if quota.meter == meter}


def holds(name: Window, start: int, period_start: int, taken_s: int) -> bool:
    """Whether a window that began then is the one in which the take of that second was counted."""
    seconds = name[2]
    return start == (period_start if seconds == PERIOD else taken_s - taken_s % seconds)
