"""Redis and PostgreSQL: what they keep, who may change it, and whose clock says what."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from quotagate.diagnosis import redis_certificates
from quotagate.diagnosis.cluster import of_cluster
from quotagate.diagnosis.finding import Finding, Level, judged, noted
from quotagate.diagnosis.redis_server import judge_redis

TIMEOUT_SECONDS: Final = 5.0
CLOCK_SKEW_SECONDS_MAX: Final = 2.0  # tokens expire by the gateway's clock, periods by that of Redis
ROUND_TRIP_MS_MAX: Final = 5.0  # every request waits for it once
ROUND_TRIPS: Final = 20
ROTATE_DAYS_DEFAULT: Final = 90.0  # issuing.rotate_days, where no settings of the control plane are named


class Skews(dict[str, float]):
    """By store: how many seconds this machine's clock is ahead of it."""


def of_redis(url: str, skews: Skews, shards: Mapping[str, int] | None = None) -> list[Finding]:
    """`shards`: how many the settings say that it has, by whose they are."""
    from redis import RedisError

    from common import redis_url
    from quota.ledger import LedgerUnavailable, UnsupportedServer

    try:
        for each in (url, *redis_url.plain_urls(url)):
            redis_url.certificates(each)
        return asyncio.run(_ask_redis(url, skews, shards or {}))
    except (ValueError, UnsupportedServer) as e:
        return [judged(False, "redis", str(e))]
    except (RedisError, LedgerUnavailable) as e:
        return [judged(False, "redis", f"does not answer: {e}")]


async def _ask_redis(url: str, skews: Skews, shards: Mapping[str, int]) -> list[Finding]:
    """Connects as both planes do, so that it fails where they would. Raises RedisError."""
    from common import redis_connections
    from common.redis_sentinel_url import is_sentinel
    from quota import keys
    from quotagate.diagnosis.sentinels import of_sentinels

    client = redis_connections.client(url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)
    async with client:
        await client.ping()
        round_trip_seconds, skew_seconds = await quickest_answer(client)
        skews["redis"] = skew_seconds
        findings = [*await _of_servers(url, client), *judge_times(round_trip_seconds * 1000, skew_seconds)]
        installed = await client.get(keys.LAYOUT)
        findings += judge_shards(None if installed is None else int(installed), shards)
        if is_sentinel(url):
            findings += await of_sentinels(url, client)
        findings += await redis_certificates.of_all(url, client)
    return findings


async def quickest_answer(client: Any) -> tuple[float, float]:
    """Seconds of a round trip, and how far this machine's clock is ahead. The quickest of several, since one alone may
    have waited for a busy processor. Raises RedisError."""
    answers = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        seconds, microseconds = await client.time()
        answers.append((time.perf_counter() - began, time.time() - (seconds + microseconds / 1e6)))
    return min(answers)


async def _of_servers(url: str, client: Any) -> list[Finding]:
    """Of one server, or of all that a Cluster has. Raises RedisError."""
    from common import redis_keeping
    from common.redis_cluster.client import ClusterClient
    from common.redis_sentinel_url import is_sentinel
    from control.ledger import primaries

    if isinstance(client, ClusterClient):
        return await of_cluster(client)
    findings = list(judge_redis(await client.info(), await redis_keeping.save_points(client)))
    if not is_sentinel(url):
        several = await primaries.several(url)
        findings.append(judged(several is None, "redis primaries", several or "one answers"))
    return findings


def judge_shards(installed: int | None, named: Mapping[str, int]) -> Iterator[Finding]:
    """`installed`: with how many shards this Redis was; None: nobody has used it yet. `named`: what the settings say,
    by whose they are."""
    if not named:
        return
    good = len({*named.values(), installed or next(iter(named.values()))}) == 1
    known = "this Redis is not installed yet" if installed is None else f"this Redis was installed with {installed}"
    said = ", ".join(f"{whose} say {shards}" for whose, shards in named.items())
    yield judged(good, "redis shards", f"{known}; {said}" + ("" if good else ": redis.shards must be the same for all"))


def judge_times(round_trip_ms: float, skew_seconds: float) -> Iterator[Finding]:
    detail = f"{round_trip_ms:.2f} ms, which every request waits once"
    yield judged(round_trip_ms <= ROUND_TRIP_MS_MAX, "redis round trip", detail)
    yield _clock("redis clock", "this machine", skew_seconds, "Redis")


def judge_stores(skews: Skews) -> Finding:
    """The clocks of both stores."""
    found = _clock("clocks of stores", "PostgreSQL", skews["redis"] - skews["postgres"], "Redis")
    return Finding(found.level, found.what, f"{found.detail}, whose clock begins and ends periods")


def _clock(what: str, one: str, seconds_ahead: float, other: str) -> Finding:
    detail = f"{one} is {abs(seconds_ahead):.3f} s {'ahead of' if seconds_ahead >= 0 else 'behind'} {other}"
    return judged(abs(seconds_ahead) <= CLOCK_SKEW_SECONDS_MAX, what, detail)


def of_postgres(dsn: str, skews: Skews, rotate_days: float = ROTATE_DAYS_DEFAULT) -> Iterator[Finding]:
    """`rotate_days`: after so long a signing key is replaced."""
    from control import roles
    from control.db import RightsMissing, StoreUnavailable
    from control.ledger import clocks

    try:
        role, hardening = roles.ask(dsn)
        skews["postgres"] = clocks.ask(dsn)
    except (StoreUnavailable, RightsMissing) as e:
        yield judged(False, "postgres", str(e))
        return
    yield judged(not role.may_change, "postgres role", str(role))
    yield from judge_hardening(hardening, rotate_days)
    yield _clock("postgres clock", "this machine", skews["postgres"], "PostgreSQL")


class Hardening(Protocol):
    """What an attacker would look for in the database."""

    @property
    def makes_roles(self) -> bool: ...
    @property
    def makes_databases(self) -> bool: ...
    @property
    def replicates(self) -> bool: ...
    @property
    def bootstrap_tokens(self) -> int: ...
    @property
    def old_tokens(self) -> int: ...
    @property
    def ids_with_address(self) -> int: ...
    @property
    def signing_key_days(self) -> float | None: ...


def of_way(dsn: str, session_dsn: str | None, *, settings_named: bool) -> Finding:
    """Whether the writers' leases have sessions. `settings_named`: then `session_dsn` is what they say."""
    from control.commands import ways
    from control.db import StoreUnavailable

    what = "postgres pooler"
    try:
        way = ways.ask(dsn, session_dsn)
    except StoreUnavailable as e:
        return judged(False, what, str(e))
    if way.without_sessions is not None:
        return judged(False, what, way.without_sessions) if settings_named else noted(False, what, way.without_sessions)
    if not way.pooled:
        return judged(True, what, "none is in between")
    kept = "it keeps sessions" if session_dsn is None else "sessions go by postgres.session_dsn"
    return judged(True, what, f"one is in between, and {kept}")


def of_replica(dsn: str, replica_dsn: str) -> Finding:
    from control.commands import ways
    from control.db import StoreUnavailable

    try:
        fault = ways.fault_of_replica(dsn, replica_dsn)
    except StoreUnavailable as e:
        fault = str(e)
    return judged(fault is None, "postgres replica", fault or "it follows the primary")


def judge_hardening(found: Hardening, rotate_days: float) -> Iterator[Finding]:
    has = {"CREATEROLE": found.makes_roles, "CREATEDB": found.makes_databases, "REPLICATION": found.replicates}
    rights = ", ".join(name for name in has if has[name])
    detail = f"the role has {rights}: take what it does not need" if rights else "none beyond its tables"
    yield judged(not rights, "postgres rights", detail)
    # A token of a year is no fault of ours, but it is time to roll it.
    tokens = "1 token is" if found.old_tokens == 1 else f"{found.old_tokens} tokens are"
    detail = f"{tokens} older than a year: roll them" if found.old_tokens else "none is older than a year"
    yield judged(not found.old_tokens, "service tokens", detail)
    used = "that of the settings opens everything: revoke it when people and machines have their own"
    detail = used if found.bootstrap_tokens else "that of the settings is revoked"
    yield noted(not found.bootstrap_tokens, "admin token", detail)
    users = "1 user has" if found.ids_with_address == 1 else f"{found.ids_with_address} users have"
    named = f"{users} an e-mail address for an id, which no erasure takes out of usage (docs/privacy.md)"
    detail = named if found.ids_with_address else "none is an e-mail address"
    yield judged(not found.ids_with_address, "user ids", detail)
    yield _judge_signing_key(found.signing_key_days, rotate_days)


def _judge_signing_key(days: float | None, rotate_days: float) -> Finding:
    if days is None:
        return Finding(Level.GOOD, "signing key", "there is none: nothing is issued here")
    if days > rotate_days + 1:  # a control plane replaces it within seconds
        detail = f"the newest is {days:.0f} days old, and is replaced after {rotate_days:g}: does a control plane run?"
        return Finding(Level.WRONG, "signing key", detail)
    return Finding(Level.GOOD, "signing key", f"the newest is {max(days, 0):.0f} days old, of {rotate_days:g}")
