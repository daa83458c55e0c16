"""`quotagate doctor`: checks what is running, and says what is wrong with it."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from quotagate.config import SettingsKind, model
from quotagate.diagnosis import certificates, elsewhere, exposure, planes, secrets, stores
from quotagate.diagnosis.finding import Finding
from quotagate.failure import CommandFailed
from quotagate.options import DATA_DIR_DEFAULT, DataDir

if TYPE_CHECKING:
    from control.settings.control_plane import Settings
    from gateway.settings.root import GatewaySettings
    from gateway.settings.upstreams import Upstream


NAMED: Final = {
    "gateway": "the gateway",
    "control": "the control plane",
    "redis": "Redis",
    "postgres": "PostgreSQL",
    "gateway_config": "what the gateway's settings name",
    "control_config": "what the control plane's settings name",
}
"""By parameter: what it has the command look at."""


@dataclass(frozen=True)
class Examined:
    """What the command examines; what is empty is left out."""

    gateway: str | None
    control: str | None
    redis: str | None
    postgres: str | None
    gateway_settings: "tuple[Path, GatewaySettings] | None" = None
    control_settings: "tuple[Path, Settings] | None" = None
    upstreams: "Mapping[str, Upstream]" = field(default_factory=dict)
    """Of a stack that has no settings file of ours."""
    secret_files: tuple[Path, ...] = ()
    """Which nobody but their owner may read."""
    reasons: tuple[str, ...] = ()
    """What is examined, and who named it."""
    instead_of: tuple[str, ...] = ()
    """What would be, but for variables of the environment."""

    def left_out(self) -> list[str]:
        """What is not examined, and what would have it examined."""
        files = self.gateway_settings or self.control_settings
        parts = (
            ("the gateway", self.gateway, "name it with --gateway"),
            ("the control plane", self.control, "name it with --control"),
            ("Redis", self.redis, "name it with --redis"),
            ("PostgreSQL", self.postgres, "name it with --postgres"),
            ("upstreams", self.gateway_settings or self.upstreams, "name their settings with --gateway-config"),
            ("key sets", files, "name their settings with --gateway-config or --control-config"),
        )
        return [*(f"{what}: {option}" for what, examined, option in parts if not examined), *self.instead_of]


def doctor(
    ctx: typer.Context,
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
        Path | None,
        typer.Option(metavar="FILE", help="Also check what it names: upstreams, key sets, certificates, ports, files."),
    ] = None,
    control_config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same of the control plane's settings.")
    ] = None,
    data_dir: DataDir = DATA_DIR_DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Check the gateway, the control plane, Redis and PostgreSQL, and what settings files name. Print what is wrong,
    what somebody should know (note), and on stderr what was checked, because of which option or variable, and what was
    not. Without any of these options and variables it checks what `quotagate up` runs on DIR. Exits with 1 when
    something is wrong."""
    if any((gateway, control, redis, postgres, gateway_config, control_config)):
        reasons, instead_of = _reasons(ctx, data_dir)
        examined = Examined(
            gateway,
            control,
            redis,
            postgres,
            _settings(gateway_config, SettingsKind.GATEWAY),
            _settings(control_config, SettingsKind.CONTROL),
            reasons=reasons,
            instead_of=instead_of,
        )
    else:
        examined = _running_stack(data_dir)
    with redirect_stdout(sys.stderr):  # log lines of the checks are not findings
        findings = list(_findings(examined))
    wrong = sum(finding.is_wrong for finding in findings)
    if as_json:
        documents = [finding.document() for finding in findings]
        looked_at = {"looked_at": list(examined.reasons), "not_looked_at": examined.left_out()}
        content = {"wrong": wrong, "findings": documents, **looked_at}
        typer.echo(json.dumps(content, indent=2))
    else:
        for finding in findings:
            typer.echo(f"{finding.level.value:<5}  {finding.what:<18} {finding.detail}")
        for what in examined.reasons:
            typer.echo(f"checked: {what}", err=True)  # this is not a finding
        for what in examined.left_out():
            typer.echo(f"not checked: {what}", err=True)
    if wrong:
        raise CommandFailed(f"{wrong} of {len(findings)} checks failed")


def _running_stack(data_dir: Path) -> Examined:
    """What `quotagate up` runs on the directory. Raises CommandFailed."""
    from gateway.settings.upstreams import Upstream
    from quotagate.admin import running_stack

    ready = running_stack(data_dir, ", or name what to check: --gateway, --control, --redis, --postgres")
    return Examined(
        ready["gateway"],
        ready["control"],
        ready["redis"],
        ready["postgres"],
        upstreams={"sample": Upstream(url=ready["upstream"])},
        secret_files=(data_dir / "ready.json",),
        reasons=(f"what `quotagate up` runs on {data_dir}, since nothing else is named",),
    )


def _reasons(ctx: typer.Context, data_dir: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is examined, and what would be: a variable that somebody set for another command has this one look at
    a part only."""
    reasons, variables, options = [], [], 0
    for each in ctx.command.params:
        if each.name in NAMED and ctx.params[each.name]:
            source = ctx.get_parameter_source(each.name)
            if source is not None and source.name == "ENVIRONMENT":
                variables.append(str(each.envvar))
                reasons.append(f"{NAMED[each.name]}: the environment has {each.envvar}")
            else:
                options += 1
                reasons.append(f"{NAMED[each.name]}: {each.opts[0]} names it")
    unset = f"what `quotagate up` runs on {data_dir}: unset {', '.join(variables)}, and it is checked"
    return tuple(reasons), () if options else (unset,)


def _settings(file: Path | None, kind: SettingsKind) -> tuple[Path, Any] | None:
    """Raises SettingsError."""
    from common.settings_file import load

    return None if file is None else (file, load(file, f"{kind}.yaml", model(kind)))


def _findings(examined: Examined) -> Iterator[Finding]:
    if examined.gateway:
        yield from planes.of_plane("gateway", examined.gateway)
    if examined.control:
        yield from planes.of_plane("control", examined.control)
    yield from _of_stores(examined)
    if examined.upstreams:
        yield from elsewhere.of_upstreams(examined.upstreams)
    yield from secrets.of_files(examined.secret_files, secrets.OTHERS)
    if examined.gateway_settings is not None:
        yield from _of_gateway_settings(*examined.gateway_settings)
    if examined.control_settings is not None:
        yield from _of_control_settings(*examined.control_settings)
    yield planes.of_installation()


def _of_stores(examined: Examined) -> Iterator[Finding]:
    skews, settings = stores.Skews(), examined.control_settings
    if examined.redis:
        both = {"the gateway's settings": examined.gateway_settings, "the control plane's": settings}
        shards = {whose: named[1].redis.shards for whose, named in both.items() if named is not None}
        yield from stores.of_redis(examined.redis, skews, shards)
    if examined.postgres:
        rotate_days = stores.ROTATE_DAYS_DEFAULT if settings is None else settings[1].issuing.rotate_days
        yield from stores.of_postgres(examined.postgres, skews, rotate_days)
        if "postgres" in skews:
            session_dsn = None if settings is None else settings[1].postgres.session_way
            yield stores.of_way(examined.postgres, session_dsn, settings_named=settings is not None)
            replica = None if settings is None else settings[1].postgres.replica
            if replica is not None:
                yield stores.of_replica(examined.postgres, replica.dsn.get_secret_value())
    if len(skews) == 2:
        yield stores.judge_stores(skews)


def _of_gateway_settings(file: Path, settings: "GatewaySettings") -> Iterator[Finding]:
    from gateway.process.metrics_of_machine import certificate_files

    yield from elsewhere.of_upstreams(settings.upstreams)
    for named, until in certificate_files(settings):
        yield certificates.judge_file(named, until)
    yield from elsewhere.of_issuers("keys of gateway", settings.auth)
    if settings.management.port:
        yield from planes.of_key_set_ages(settings.management)
    yield from exposure.of_gateway(settings)
    yield secrets.of_settings("gateway settings", file, settings)
    yield from secrets.of_files(secrets.key_files_of_gateway(settings))


def _of_control_settings(file: Path, settings: "Settings") -> Iterator[Finding]:
    from control.metrics.certificates import certificate_files

    for named, until in certificate_files(settings):
        yield certificates.judge_file(named, until)
    if settings.auth is not None:
        yield from elsewhere.of_issuers("keys of control", settings.auth)
    yield from elsewhere.of_providers(settings)
    yield from exposure.of_control(settings)
    yield secrets.of_settings("control settings", file, settings)
    yield from secrets.of_files(secrets.key_files_of_control(settings))
