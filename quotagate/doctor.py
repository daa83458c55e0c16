"""`quotagate doctor`: looks at what is running and says what is wrong with it."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quotagate.config import SettingsKind, model
from quotagate.failure import CommandFailed
from quotagate.options import DATA_DIR_DEFAULT, DataDir

if TYPE_CHECKING:
    from gateway.settings.upstreams import Upstream
    from identity.settings import Auth

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
    gateway_config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Look at its upstreams and its key set, too.")
    ] = None,
    control_config: Annotated[Path | None, typer.Option(metavar="FILE", help="Look at its key set, too.")] = None,
    data_dir: DataDir = DATA_DIR_DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look at the gateway, the control plane, Redis and PostgreSQL, and at the upstreams and key sets of settings
    files, and say what is wrong, and what was not looked at. Without any of these: at what `quotagate up` runs on DIR.
    Ends with exit code 1 when something is wrong."""
    upstreams: Mapping[str, Upstream] = {}
    if not any((gateway, control, redis, postgres, gateway_config, control_config)):
        from quotagate.admin import running_stack

        ready = running_stack(data_dir, ", or say what to look at: --gateway, --control, --redis, --postgres")
        gateway, control, redis, postgres = (ready[name] for name in ("gateway", "control", "redis", "postgres"))
        upstreams = _sample(ready["upstream"])
    auths: list[tuple[str, Auth]] = []
    if gateway_config is not None:
        of_gateway = _settings(gateway_config, SettingsKind.GATEWAY)
        upstreams = of_gateway.upstreams
        auths.append(("keys of gateway", of_gateway.auth))
    if control_config is not None and (auth := _settings(control_config, SettingsKind.CONTROL).auth) is not None:
        auths.append(("keys of control", auth))
    skews: dict[str, float] = {}
    with redirect_stdout(sys.stderr):  # what is logged on the way is no finding
        findings = [
            *(_of_plane("gateway", gateway) if gateway else ()),
            *(_of_plane("control", control) if control else ()),
            *(_of_redis(redis, skews) if redis else ()),
            *(_of_postgres(postgres, skews) if postgres else ()),
            *([judge_stores(**skews)] if len(skews) == 2 else ()),
            *(_of_upstreams(upstreams) if upstreams else ()),
            *(_of_keys(what, auth) for what, auth in auths),
        ]
    left_out = [
        f"{what}: {needs}"
        for what, looked_at, needs in (
            ("the gateway", gateway, "name it with --gateway"),
            ("the control plane", control, "name it with --control"),
            ("Redis", redis, "name it with --redis"),
            ("PostgreSQL", postgres, "name it with --postgres"),
            ("upstreams", upstreams, "name their settings with --gateway-config"),
            ("key sets", auths, "name their settings with --gateway-config or --control-config"),
        )
        if not looked_at
    ]
    wrong = sum(not finding.good for finding in findings)
    if as_json:
        content = {"wrong": wrong, "findings": [asdict(finding) for finding in findings], "not_looked_at": left_out}
        typer.echo(json.dumps(content, indent=2))
    else:
        for finding in findings:
            typer.echo(f"{'good ' if finding.good else 'WRONG'}  {finding.what:<18} {finding.told}")
        for what in left_out:
            typer.echo(f"not looked at: {what}", err=True)  # it is no finding
    if wrong:
        raise CommandFailed(f"{wrong} of {len(findings)} findings are wrong")


def _settings(file: Path, kind: SettingsKind) -> Any:
    """Raises SettingsError."""
    from common.settings_file import load

    return load(file, f"{kind}.yaml", model(kind))


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

    from common import redis_url
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
    from common import redis_connections

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
    from control import roles
    from control.db import RightsMissing, StoreUnavailable
    from control.ledger import clocks

    try:
        standing = roles.ask(dsn)
        skews["postgres"] = clocks.ask(dsn)
    except (StoreUnavailable, RightsMissing) as e:
        yield Finding(False, "postgres", str(e))
        return
    yield Finding(not standing.may_change, "postgres role", str(standing))
    yield judge_postgres_time(skews["postgres"])


def _sample(url: str) -> "Mapping[str, Upstream]":
    from gateway.settings.upstreams import Upstream

    return {"sample": Upstream(url=url)}


def _of_upstreams(upstreams: "Mapping[str, Upstream]") -> list[Finding]:
    """As the gateway connects: each target, all at once, since one that is silent takes its whole timeout."""

    async def look() -> list[Finding]:
        each = ((name, url, upstream) for name, upstream in upstreams.items() for url in upstream.urls)
        return list(await asyncio.gather(*(_try_target(*one) for one in each)))

    return asyncio.run(look())


async def _try_target(name: str, url: str, upstream: "Upstream") -> Finding:
    from gateway.upstream.way import connect_to_addresses

    what = f"upstream {name}"
    try:
        addresses = await connect_to_addresses(url, upstream)
    except TimeoutError:
        return Finding(False, what, f"{url} does not answer within {upstream.connect_timeout_seconds:g} s")
    except OSError as e:  # ssl.SSLError is one
        return Finding(False, what, f"{url} cannot be connected to: {_reason(e)}")
    secured = ", and its certificate is believed" if url.startswith("https:") else ""
    if upstream.tls is not None and not upstream.tls.verify:
        secured = ", and its certificate is not looked at (tls.verify is false)"
    return Finding(True, what, f"{url} takes connections at {', '.join(addresses)}{secured}")


def _reason(e: OSError) -> str:
    import ssl

    if isinstance(e, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {e.verify_message}"
    return str(e) or type(e).__name__


def _of_keys(what: str, auth: "Auth") -> Finding:
    """As both planes read them."""
    from identity.jwk import KeySetUnavailable
    from identity.keysets import look, source_of

    if auth.jwks is None:
        return Finding(True, what, f"a shared secret for {', '.join(auth.algorithms)}")
    try:
        keys = asyncio.run(look(auth))
    except KeySetUnavailable as e:
        return Finding(False, what, f"{source_of(auth)}: {e}")
    return Finding(True, what, f"{source_of(auth)} holds {len(keys)} for {', '.join(auth.algorithms)}")
