"""`quotagate doctor`: checks what is running, and says what is wrong with it."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quotagate.certificate_checks import Until, judge_end, judge_file
from quotagate.config import SettingsKind, model
from quotagate.failure import CommandFailed
from quotagate.hardening import judge_hardening
from quotagate.options import DATA_DIR_DEFAULT, DataDir

if TYPE_CHECKING:
    from gateway.settings.upstreams import Upstream
    from identity.settings import Auth, IssuerSettings

TIMEOUT_SECONDS = 5.0
CLOCK_SKEW_SECONDS_MAX = 2.0  # tokens expire by the gateway's clock, periods by that of Redis
ROUND_TRIP_MS_MAX = 5.0  # every request waits for it once
VERSION_MIN = (7, 0)


@dataclass(frozen=True)
class Finding:
    good: bool
    what: str
    detail: str

    def document(self) -> dict[str, object]:
        return {"good": self.good, "what": self.what, "told": self.detail}


@dataclass(frozen=True)
class Examined:
    """What the command examines; what is empty is left out."""

    gateway: str | None
    control: str | None
    redis: str | None
    postgres: str | None
    upstreams: "Mapping[str, Upstream]"
    certificates: Sequence[tuple[Path, Until]]
    """Files that hold some, and how long those of each last."""
    key_sets: "Sequence[tuple[str, Auth]]"
    """What each belongs to, and its settings."""

    def left_out(self) -> list[str]:
        """What is not examined, and which option would name it."""
        parts = (
            ("the gateway", self.gateway, "name it with --gateway"),
            ("the control plane", self.control, "name it with --control"),
            ("Redis", self.redis, "name it with --redis"),
            ("PostgreSQL", self.postgres, "name it with --postgres"),
            ("upstreams", self.upstreams, "name their settings with --gateway-config"),
            ("key sets", self.key_sets, "name their settings with --gateway-config or --control-config"),
        )
        return [f"{what}: {option}" for what, examined, option in parts if not examined]


def doctor(
    gateway: Annotated[
        str | None, typer.Option(envvar="QUOTAGATE_GATEWAY_URL", metavar="URL", help="The gateway to check.")
    ] = None,
    control: Annotated[
        str | None, typer.Option(envvar="QUOTAGATE_CONTROL_URL", metavar="URL", help="The control plane to check.")
    ] = None,
    redis: Annotated[
        str | None, typer.Option(envvar="QUOTAGATE_REDIS_URL", metavar="URL", help="The Redis to check.")
    ] = None,
    postgres: Annotated[
        str | None,
        typer.Option(envvar="QUOTAGATE_POSTGRES_DSN", metavar="DSN", help="As in the control plane's settings."),
    ] = None,
    gateway_config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also check its upstreams and its key set.")
    ] = None,
    control_config: Annotated[Path | None, typer.Option(metavar="FILE", help="Also check its key set.")] = None,
    data_dir: DataDir = DATA_DIR_DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Check the gateway, the control plane, Redis and PostgreSQL, and the upstreams and key sets of settings files.
    Print what is wrong, and what was not checked. Without any of these options it checks what `quotagate up` runs on
    DIR. Exits with 1 when something is wrong."""
    if any((gateway, control, redis, postgres, gateway_config, control_config)):
        examined = _named(gateway, control, redis, postgres, gateway_config, control_config)
    else:
        examined = _running_stack(data_dir)
    with redirect_stdout(sys.stderr):  # log lines of the checks are not findings
        findings = list(_findings(examined))
    wrong = sum(not finding.good for finding in findings)
    if as_json:
        documents = [finding.document() for finding in findings]
        content = {"wrong": wrong, "findings": documents, "not_looked_at": examined.left_out()}
        typer.echo(json.dumps(content, indent=2))
    else:
        for finding in findings:
            typer.echo(f"{'good ' if finding.good else 'WRONG'}  {finding.what:<18} {finding.detail}")
        for what in examined.left_out():
            typer.echo(f"not checked: {what}", err=True)  # this is not a finding
    if wrong:
        raise CommandFailed(f"{wrong} of {len(findings)} checks failed")


def _running_stack(data_dir: Path) -> Examined:
    """What `quotagate up` runs on the directory. Raises CommandFailed."""
    from gateway.settings.upstreams import Upstream
    from quotagate.admin import running_stack

    ready = running_stack(data_dir, ", or name what to check: --gateway, --control, --redis, --postgres")
    sample = {"sample": Upstream(url=ready["upstream"])}
    return Examined(ready["gateway"], ready["control"], ready["redis"], ready["postgres"], sample, (), ())


def _named(
    gateway: str | None,
    control: str | None,
    redis: str | None,
    postgres: str | None,
    gateway_config: Path | None,
    control_config: Path | None,
) -> Examined:
    """What the options name. Raises SettingsError."""
    upstreams: Mapping[str, Upstream] = {}
    certificates: Sequence[tuple[Path, Until]] = ()
    key_sets: list[tuple[str, Auth]] = []
    if gateway_config is not None:
        from gateway.process.metrics_of_machine import certificate_files

        of_gateway = _settings(gateway_config, SettingsKind.GATEWAY)
        upstreams, certificates = of_gateway.upstreams, list(certificate_files(of_gateway))
        key_sets.append(("keys of gateway", of_gateway.auth))
    if control_config is not None and (auth := _settings(control_config, SettingsKind.CONTROL).auth) is not None:
        key_sets.append(("keys of control", auth))
    return Examined(gateway, control, redis, postgres, upstreams, certificates, key_sets)


def _settings(file: Path, kind: SettingsKind) -> Any:
    """Raises SettingsError."""
    from common.settings_file import load

    return load(file, f"{kind}.yaml", model(kind))


def _findings(examined: Examined) -> Iterator[Finding]:
    if examined.gateway:
        yield from _of_plane("gateway", examined.gateway)
    if examined.control:
        yield from _of_plane("control", examined.control)
    skews: dict[str, float] = {}
    if examined.redis:
        yield from _of_redis(examined.redis, skews)
    if examined.postgres:
        yield from _of_postgres(examined.postgres, skews)
    if len(skews) == 2:
        yield judge_stores(**skews)
    if examined.upstreams:
        yield from _of_upstreams(examined.upstreams)
    for file, until in examined.certificates:
        good, detail = judge_file(file, until)
        yield Finding(good, "certificate", detail)
    for what, auth in examined.key_sets:
        for issuer in auth.trusted:
            yield _of_keys(what if len(auth.trusted) == 1 else f"{what}: {issuer.issuer}", issuer)
    yield _of_installation()


def _of_installation() -> Finding:
    """As what the gateway runs that is started from here."""
    from compiled import finder

    running = finder.install()
    reason = f": {running.detail}" if running.detail else ""
    return Finding(running.kind is not finder.Kind.UNUSABLE, "installation", f"the gateway runs as {running}{reason}")


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
    """Connects as both planes do, so that it fails where they would. Raises RedisError."""
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
    """What INFO says about a Redis or a Valkey."""
    version = str(info.get("valkey_version") or info["redis_version"])
    new_enough = tuple(int(part) for part in version.split(".")[:2]) >= VERSION_MIN
    oldest = ".".join(map(str, VERSION_MIN))
    yield Finding(new_enough, "redis version", version if new_enough else f"{version} is too old: {oldest} is needed")
    persistent = info["aof_enabled"] == 1
    detail = "append-only file" if persistent else "off: a restart loses what was charged"
    yield Finding(persistent, "redis persistence", detail)
    policy = info["maxmemory_policy"]
    evicts = policy != "noeviction" and info["maxmemory"] != 0
    detail = f"{policy} may remove counters: set maxmemory-policy to noeviction" if evicts else policy
    yield Finding(not evicts, "redis eviction", detail)


def judge_times(round_trip_ms: float, skew_seconds: float) -> Iterator[Finding]:
    detail = f"{round_trip_ms:.2f} ms, which every request waits once"
    yield Finding(round_trip_ms <= ROUND_TRIP_MS_MAX, "redis round trip", detail)
    yield Finding(
        abs(skew_seconds) <= CLOCK_SKEW_SECONDS_MAX, "redis clock", _difference("this machine", skew_seconds, "Redis")
    )


def judge_postgres_time(skew_seconds: float) -> Finding:
    detail = _difference("this machine", skew_seconds, "PostgreSQL")
    return Finding(abs(skew_seconds) <= CLOCK_SKEW_SECONDS_MAX, "postgres clock", detail)


def judge_stores(redis: float, postgres: float) -> Finding:
    """`redis`, `postgres`: the seconds by which this machine is ahead of each of them."""
    skew_seconds = redis - postgres
    detail = f"{_difference('PostgreSQL', skew_seconds, 'Redis')}, whose clock begins and ends periods"
    return Finding(abs(skew_seconds) <= CLOCK_SKEW_SECONDS_MAX, "clocks of stores", detail)


def _difference(one: str, seconds_ahead: float, other: str) -> str:
    return f"{one} is {abs(seconds_ahead):.3f} s {'ahead of' if seconds_ahead >= 0 else 'behind'} {other}"


def _of_postgres(dsn: str, skews: dict[str, float]) -> Iterator[Finding]:
    from control import roles
    from control.db import RightsMissing, StoreUnavailable
    from control.ledger import clocks

    try:
        role, hardening = roles.ask(dsn)
        skews["postgres"] = clocks.ask(dsn)
    except (StoreUnavailable, RightsMissing) as e:
        yield Finding(False, "postgres", str(e))
        return
    yield Finding(not role.may_change, "postgres role", str(role))
    for good, what, detail in judge_hardening(hardening):
        yield Finding(good, what, detail)
    yield judge_postgres_time(skews["postgres"])


def _of_upstreams(upstreams: "Mapping[str, Upstream]") -> list[Finding]:
    """Connects as the gateway does: to all targets at once, since a silent one takes its whole timeout."""

    async def connect() -> list[Finding]:
        each = ((name, url, upstream) for name, upstream in upstreams.items() for url in upstream.urls)
        return list(await asyncio.gather(*(_try_target(*one) for one in each)))

    return asyncio.run(connect())


async def _try_target(name: str, url: str, upstream: "Upstream") -> Finding:
    from gateway.upstream.endpoint import connect_to_addresses

    what = f"upstream {name}"
    try:
        reached = await connect_to_addresses(url, upstream)
    except TimeoutError:
        return Finding(False, what, f"{url} does not answer within {upstream.connect_timeout_seconds:g} s")
    except OSError as e:  # ssl.SSLError is one
        return Finding(False, what, f"the connection to {url} failed: {_reason(e)}")
    good, secured = True, ""
    if reached.certificate_ends is not None:
        good, ends = judge_end(reached.certificate_ends, time.time())
        secured = f", and its certificate is trusted and {ends}"
    if upstream.tls is not None and not upstream.tls.verify:
        secured = ", and its certificate is not checked (tls.verify is false)"
    return Finding(good, what, f"{url} accepts connections at {', '.join(reached.addresses)}{secured}")


def _reason(e: OSError) -> str:
    import ssl

    if isinstance(e, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {e.verify_message}"
    return str(e) or type(e).__name__


def _of_keys(what: str, issuer: "IssuerSettings") -> Finding:
    """Reads the key set as both planes do."""
    from identity.keysets.jwk import KeySetUnavailable
    from identity.keysets.keyset import look, source_of

    if issuer.secret is not None:
        return Finding(True, what, f"a shared secret for {', '.join(issuer.algorithms)}")
    try:
        keys = asyncio.run(look(issuer))
    except KeySetUnavailable as e:
        return Finding(False, what, f"{source_of(issuer)}: {e}")
    usable = "1 usable key" if len(keys) == 1 else f"{len(keys)} usable keys"
    return Finding(True, what, f"{source_of(issuer)} has {usable} for {', '.join(issuer.algorithms)}")
