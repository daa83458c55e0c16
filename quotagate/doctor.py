"""`quotagate doctor`: looks at what is running and says what is wrong with it."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from quotagate.failure import CommandFailed
from quotagate.options import DATA_DIR_DEFAULT, DataDir

TIMEOUT_SECONDS = 5.0
CLOCK_SKEW_SECONDS_MAX = 2.0  # tokens are judged by the gateway's clock, periods by that of Redis
ROUND_TRIP_MS_MAX = 5.0  # every request pays it once
VERSION_MIN = (7, 0)


@dataclass(frozen=True)
class Finding:
    good: bool
    what: str
    told: str


def doctor(
    gateway: Annotated[str | None, typer.Option(envvar="QUOTAGATE_GATEWAY_URL", metavar="URL")] = None,
    control: Annotated[str | None, typer.Option(envvar="QUOTAGATE_CONTROL_URL", metavar="URL")] = None,
    redis: Annotated[str | None, typer.Option(envvar="QUOTAGATE_REDIS_URL", metavar="URL")] = None,
    postgres: Annotated[
        str | None, typer.Option(envvar="QUOTAGATE_POSTGRES_DSN", metavar="DSN", help="As the control plane has it.")
    ] = None,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Look at the gateway, the control plane, Redis and PostgreSQL, and say what is wrong. Without addresses: at what
    `quotagate up` runs on DIR. Ends with exit code 1 when something is."""
    if gateway is control is redis is postgres is None:
        from quotagate.admin import running_stack

        ready = running_stack(data_dir)
        gateway, control, redis, postgres = (ready[name] for name in ("gateway", "control", "redis", "postgres"))
    skews: dict[str, float] = {}
    findings = [
        *(_of_plane("gateway", gateway) if gateway else ()),
        *(_of_plane("control", control) if control else ()),
        *(_of_redis(redis, skews) if redis else ()),
        *(_of_postgres(postgres, skews) if postgres else ()),
        *([judge_stores(**skews)] if len(skews) == 2 else ()),
    ]
    for finding in findings:
        typer.echo(f"{'good ' if finding.good else 'WRONG'}  {finding.what:<18} {finding.told}")
    wrong = sum(not finding.good for finding in findings)
    if wrong:
        raise CommandFailed(f"{wrong} of {len(findings)} findings are wrong")


def _of_plane(name: str, url: str) -> Iterator[Finding]:
    import httpx

    try:
        response = httpx.get(f"{url}/-/ready", timeout=TIMEOUT_SECONDS)
    except httpx.TransportError as e:
        yield Finding(False, name, f"{url} does not answer: {e}")
        return
    yield Finding(response.status_code == 200, name, f"{url} answers {response.status_code} {response.text[:200]}")


def _of_redis(url: str, skews: dict[str, float]) -> list[Finding]:
    from redis import RedisError

    from quota import redis_url
    from quota.ledger import UnsupportedServer

    try:
        redis_url.certificates(url)
        return asyncio.run(_ask_redis(url, skews))
    except (ValueError, UnsupportedServer) as e:
        return [Finding(False, "redis", str(e))]
    except RedisError as e:
        return [Finding(False, "redis", f"does not answer: {e}")]


async def _ask_redis(url: str, skews: dict[str, float]) -> list[Finding]:
    """As both planes connect: what keeps them from it keeps us. Raises RedisError."""
    from quota import redis_connections

    client = redis_connections.client(url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)
    async with client:
        await client.ping()
        began = time.perf_counter()
        seconds, microseconds = await client.time()
        round_trip_ms = (time.perf_counter() - began) * 1000
        skew_seconds = skews["redis"] = time.time() - (seconds + microseconds / 1e6)
        return [*judge_redis(await client.info()), *judge_times(round_trip_ms, skew_seconds)]


def judge_redis(info: dict[str, Any]) -> Iterator[Finding]:
    """What INFO tells of a Redis or a Valkey."""
    version = str(info.get("valkey_version") or info["redis_version"])
    new_enough = tuple(int(part) for part in version.split(".")[:2]) >= VERSION_MIN
    yield Finding(new_enough, "redis version", version if new_enough else f"{version}; 7.0 is the oldest that works")
    kept = info["aof_enabled"] == 1
    yield Finding(kept, "redis persistence", "append-only file" if kept else "off: a restart forgets what was charged")
    policy = info["maxmemory_policy"]
    keeps_all = policy == "noeviction" or info["maxmemory"] == 0
    yield Finding(
        keeps_all, "redis eviction", policy if keeps_all else f"{policy} may throw counters away; set noeviction"
    )


def judge_times(round_trip_ms: float, skew_seconds: float) -> Iterator[Finding]:
    told = f"{round_trip_ms:.2f} ms; every request pays it once"
    yield Finding(round_trip_ms <= ROUND_TRIP_MS_MAX, "redis round trip", told)
    told = f"{skew_seconds:+.3f} s against this machine"
    yield Finding(abs(skew_seconds) <= CLOCK_SKEW_SECONDS_MAX, "redis clock", told)


def judge_postgres_time(skew_seconds: float) -> Finding:
    told = f"{skew_seconds:+.3f} s against this machine"
    return Finding(abs(skew_seconds) <= CLOCK_SKEW_SECONDS_MAX, "postgres clock", told)


def judge_stores(redis: float, postgres: float) -> Finding:
    """How far this machine is ahead of each of them, seconds."""
    told = f"PostgreSQL {redis - postgres:+.3f} s against Redis, by which periods begin and end"
    return Finding(abs(redis - postgres) <= CLOCK_SKEW_SECONDS_MAX, "clocks of stores", told)


def _of_postgres(dsn: str, skews: dict[str, float]) -> Iterator[Finding]:
    from control import clocks, roles
    from control.db import RightsMissing, StoreUnavailable

    try:
        standing = roles.ask(dsn)
        skews["postgres"] = clocks.ask(dsn)
    except (StoreUnavailable, RightsMissing) as e:
        yield Finding(False, "postgres", str(e))
        return
    yield Finding(not standing.may_change, "postgres role", str(standing))
    yield judge_postgres_time(skews["postgres"])
