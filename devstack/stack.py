"""`quotagate up`: everything on one machine, started in order, stopped in reverse."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

from common.redis_topology import Topology
from devstack import (
    announcement,
    console,
    datadir,
    demo,
    endpoints,
    further,
    gateway_settings,
    ledger_servers,
    oidc_process,
    portal_sign_in,
    postgres,
    regions,
    sample_process,
    stripe_backend,
    token_mint,
)
from devstack.child import Child, StackError, spawn
from devstack.children import Children, StopRequested
from devstack.datadir import DataDirectory
from devstack.demo_history import DemoHistory
from devstack.endpoints import APPLICATION, DATABASE
from devstack.ports import LOOPBACK

PLANE_START_TIMEOUT_SECONDS = 120.0  # a busy machine takes its time; a plane that ends is seen at once
PLANE_STOP_SECONDS = 1.2  # a stream may be open for hours, and whoever pressed Ctrl-C waits for the prompt
DEATH_SECONDS = 0.5  # from a connection that breaks to the end of its process
DEMO_TOKEN_TTL = timedelta(days=30)


@dataclass(frozen=True)
class Options:
    data_dir: Path = datadir.DEFAULT
    gateway_port: int = 8080  # 0 picks a free one, here and below
    control_port: int = 8081
    workers: int = 1  # gateway processes on the one port
    gateway_config: Path | None = None  # None: the packaged defaults, here and below
    control_config: Path | None = None
    plans: Path | None = None
    demo_history: bool = False
    """Whether there are 200 organizations with a year behind them."""
    check: Callable[[Mapping[str, str]], None] = lambda _: None
    """Is given the variables that both planes will have, before anything is started. It raises where one of the files
    above cannot be used."""
    topology: Topology = Topology.SINGLE
    """Which servers keep the ledger."""
    gateways: int = 1
    control_planes: int = 1


@dataclass(frozen=True)
class Started:
    """The result of a start."""

    database_home: Path
    plan_by_org: Mapping[str, str | None]
    sign_up: Mapping[str, Any] | None
    console: str
    """A link that opens the console once."""


class Starting(Protocol):
    def start(self) -> Started: ...


class Stage(IntEnum):
    """A stage needs those below it, so it stops before them."""

    STORES = 0
    WATCHERS = 1  # of the stores: one that is stopped is no failure
    CONTROL = 2
    TRAFFIC = 3


def up(options: Options, say: Callable[[str], None]) -> None:
    """Runs the stack until somebody asks it to stop. Raises `StackError` when a service cannot be started or dies,
    and what the options' check raises."""
    started_at = time.monotonic()
    data = datadir.prepare(options.data_dir)
    try:
        with Children() as supervisor, datadir.locked(data, supervisor.pause) as lock:
            data.withdraw()  # what a run that was killed left behind
            stack = Stack(options, data, supervisor, lock, say)
            result = started(stack, supervisor)
            try:
                facts = stack.facts(result)
                data.announce(facts)
                seconds = time.monotonic() - started_at
                for line in announcement.lines(facts, data, result.database_home, seconds=seconds):
                    say(line)
                supervisor.watch()
                say("Stopping.")
            finally:
                data.withdraw()
    except StopRequested:
        say("Stopped before everything was ready.")


def started(stack: "Starting", supervisor: Children) -> Started:
    """Starts the stack. Raises `StackError`. Where a service died meanwhile, the error is about that: its log says more
    than the error of whoever missed it."""
    try:
        return stack.start()
    except StackError:
        supervisor.pause(DEATH_SECONDS)
        raise


class Stack:
    """The services of one run, and how each is configured to reach the others."""

    def __init__(
        self, options: Options, data: DataDirectory, supervisor: Children, lock: int, say: Callable[[str], None]
    ) -> None:
        self._say = say
        self._options = options
        self._data = data
        self._supervisor = supervisor
        self._inherited_fds = (lock,)
        self._secrets = data.secrets()
        self._at = endpoints.choose(data, options.gateway_port, options.control_port, options.topology)
        self._ledger = ledger_servers.servers(
            options.topology, data.path, self._at.ledger_ports, data.log_of("*").parent, self._inherited_fds
        )
        self._further = further.choose(data, *_further_names(options), self._at.ports)
        self._own_stripe = stripe_backend.own_account(os.environ)
        self._stripe = self._own_stripe or stripe_backend.StripeBackend(
            self._secrets.stripe_key, self._secrets.stripe_webhook_secret, stripe_backend.url(self._at.stripe_port)
        )

    def start(self) -> Started:
        """Returns when each service answers and the demo organizations exist."""
        at, keep, pause = self._at, self._supervisor.keep, self._supervisor.pause
        self._options.check({**os.environ, **self._environment(), **self._of_the_issuer()})
        history = self._new_history()  # which is what the double begins with
        self._say(f"Starting Valkey and PostgreSQL; logs are in {self._data.log_of('*').parent}")
        self._ledger.start(keep, lambda child: keep(child, Stage.WATCHERS))
        database = postgres.start(self._data.path / "postgres", at.postgres_port, **self._common("postgres"))
        keep(database.child)
        sample = keep(sample_process.start(at.upstream_port, **self._common("upstream")), Stage.TRAFFIC)
        double = None if self._own_stripe or history else keep(self._start_double(), Stage.TRAFFIC)
        database.wait_ready(pause)
        self._say("Bringing the database to this release")
        self._migrate(database)
        if history is not None:
            self._say("Playing a year of 200 organizations, this once")
            history.play(at.postgres)
            double = keep(self._start_double(), Stage.TRAFFIC)
        self._apply_catalogue()
        self._ledger.wait_ready(pause)

        self._say("Starting the control plane and the gateway")
        control = self._start_control()
        if double is not None:
            stripe_backend.wait_ready(double, at.stripe_port, pause)
        self._apply_catalogue_to_stripe()  # while the control plane starts
        self._wait_until_ready(control, at.control_port)
        gateway = self._start_gateway()  # which reads at its start with which keys the control plane signs
        others = self._start_further()
        provider = self._start_provider()
        plan_by_org = demo.load(at.control, self._secrets.admin_token)
        sign_up = stripe_backend.sign_up(at.control, self._secrets.admin_token)
        sample_process.wait_ready(sample, at.upstream_port, pause)
        self._wait_until_ready(gateway, at.gateway_port)
        for plane, port in others:
            self._wait_until_ready(plane, port)
        if provider is not None:
            oidc_process.wait_ready(provider, at.oidc_port, pause)
        link = console.link(at.control, self._secrets.admin_token)
        return Started(database.home, plan_by_org, sign_up, link)

    def facts(self, started: Started) -> dict[str, Any]:
        """What ready.json holds."""
        return {
            "gateway": self._at.gateway,
            "control": self._at.control,
            "gateways": [self._at.gateway, *self._further.gateway_urls()],
            "controls": [self._at.control, *self._further.control_urls()],
            "console": started.console,
            "portal": self._portal(started),
            "metrics": self._at.metrics,
            "metrics_of_gateways": [self._at.metrics, *self._further.metrics_urls()],
            "upstream": self._at.upstream,
            "topology": self._options.topology.value,
            "redis": self._ledger.url,
            **self._ledger.facts(),
            **self._of_regions(),
            "postgres": self._at.postgres,
            "postgres_owner": self._at.postgres_owner,
            "stripe": self._stripe.api_url or "https://api.stripe.com",
            "admin_token": self._secrets.admin_token,
            "sign_up": started.sign_up and {**started.sign_up, "token": self._token(started.sign_up["org"])},
            "orgs": [
                {"org": org, "plan": plan, "token": self._token(org)} for org, plan in started.plan_by_org.items()
            ],
        }

    def _new_history(self) -> DemoHistory | None:
        """None where none is wanted, or it is there already. Raises `StackError`."""
        history = DemoHistory(self._data)
        if not self._options.demo_history or history.is_there:
            return None
        if self._own_stripe is not None or self._options.plans is not None:
            raise StackError(
                "--demo-history has plans and a Stripe account of its own: start it without --plans and "
                "without STRIPE_SECRET_KEY"
            )
        return history.begun()

    def _migrate(self, database: postgres.PostgresServer) -> None:
        # It is done in this process: two more Python interpreters would be the slowest part of the start.
        from control import roles, schema

        schema.migrate(postgres.create_database(database, DATABASE))
        postgres.create_login(database, APPLICATION, roles.APPLICATION_ROLE)

    def _apply_catalogue(self) -> None:
        from control.entitlements import catalogue

        own = self._options.plans
        catalogue.apply(self._at.postgres, *(DemoHistory(self._data).plans if own is None else (own,)))

    def _apply_catalogue_to_stripe(self) -> None:
        from control.billing.failures import StripeAway, StripeRefused
        from control.commands import plans

        try:
            plans.apply_catalogue(self._at.postgres, self._stripe.secret_key, self._stripe.api_url, dry_run=False)
        except (StripeAway, StripeRefused) as e:
            raise StackError(f"the catalogue cannot be sold at Stripe: {e}") from e

    def _start_double(self) -> Child:
        secret, at, file = self._secrets.stripe_webhook_secret, self._at, self._data.stripe_file
        return stripe_backend.start(at.stripe_port, file, at.control, secret, **self._common("stripe"))

    def _start_plane(self, name: str, port: int, config: Path | None, *extra: str) -> Child:
        """`name`: that of the command, and behind a hyphen which of several it is."""
        command = name.partition("-")[0]
        argv = [sys.executable, "-m", "quotagate", command, "--host", LOOPBACK, "--port", str(port), *extra]
        if config is not None:
            argv += ["--config", str(config)]
        env = self._environment() | (self._of_the_issuer() if command == "control" else {}) | self._regional(name)
        child = spawn(name, argv, env=env, grace_seconds=PLANE_STOP_SECONDS, **self._common(name))
        return self._supervisor.keep(child, Stage.TRAFFIC if command == "gateway" else Stage.CONTROL)

    def _start_control(self) -> Child:
        config = self._options.control_config
        if config is None:
            config = self._data.control_settings
            self._write_control_settings(config, regions.FIRST)
        return self._start_plane("control", self._at.control_port, config)

    def _write_control_settings(self, file: Path, region: str) -> None:
        of_region = region if self._options.topology is Topology.REGIONS else None
        portal_sign_in.write_settings(file, oidc_process.url(self._at.oidc_port), of_region)

    def _control_settings_of(self, name: str) -> Path:
        """Of a further control plane."""
        if self._options.topology is not Topology.REGIONS:
            return self._options.control_config or self._data.control_settings
        region = _region_of(name)
        file = self._data.control_settings_of(region)
        self._write_control_settings(file, region)
        return file

    def _start_further(self) -> list[tuple[Child, int]]:
        """Beside the first of each, with the same settings but for the region; and their ports."""
        gateway_config = self._options.gateway_config or self._data.gateway_settings
        controls = [
            (self._start_plane(name, port, self._control_settings_of(name)), port)
            for name, port in self._further.control_planes
        ]
        gateways = [
            (self._start_plane(name, port, gateway_config, *self._of_gateway(metrics_port)), port)
            for name, port, metrics_port in self._further.gateways
        ]
        return controls + gateways

    def _of_gateway(self, metrics_port: int) -> tuple[str, ...]:
        return ("--workers", str(self._options.workers), "--management-port", str(metrics_port))

    def _start_provider(self) -> Child | None:
        """At which customers of the demo sign in to their portal; None where the settings are somebody's own."""
        if self._options.control_config is not None:
            return None
        file, port = self._data.people_file, self._at.oidc_port
        portal_sign_in.write_people(file, self._at.control, demo.ORGANIZATIONS)
        return self._supervisor.keep(oidc_process.start(port, file, **self._common("oidc")), Stage.TRAFFIC)

    def _portal(self, started: Started) -> dict[str, str] | None:
        """Where the first customer of the demo that has a plan signs in, and how; None without a provider."""
        entitled = next((org for org, plan in started.plan_by_org.items() if plan is not None), None)
        if self._options.control_config is not None or entitled is None:
            return None
        return {"url": f"{self._at.control}/portal", "username": entitled, "password": entitled}

    def _start_gateway(self) -> Child:
        config = self._options.gateway_config
        if config is None:
            config = self._data.gateway_settings
            gateway_settings.write(config, self._at.control)
        return self._start_plane("gateway", self._at.gateway_port, config, *self._of_gateway(self._at.metrics_port))

    def _wait_until_ready(self, plane: Child, port: int) -> None:
        plane.wait_until(
            lambda: sample_process.answers(port, "/-/ready"), PLANE_START_TIMEOUT_SECONDS, self._supervisor.pause
        )

    def _common(self, name: str) -> dict[str, Any]:
        return {"log": self._data.log_of(name), "inherited_fds": self._inherited_fds}

    def _of_the_issuer(self) -> dict[str, str]:
        """For the control plane alone: who has the master key and the database can sign."""
        return {"QUOTAGATE_MASTER_KEY": self._secrets.master_key, "QUOTAGATE_ISSUER": self._at.control}

    def _environment(self) -> dict[str, str]:
        # Secrets travel in the environment: a command line is readable to everyone on the machine.
        return {
            "QUOTAGATE_REDIS_URL": self._ledger.url,
            "QUOTAGATE_POSTGRES_DSN": self._at.postgres,
            "QUOTAGATE_UPSTREAM_URL": self._at.upstream,
            "QUOTAGATE_JWT_SECRET": self._secrets.jwt_secret,
            "QUOTAGATE_CONTROL_EXPOSE": "true",  # the stack is for trying out, and on loopback
            "QUOTAGATE_ADMIN_TOKEN": self._secrets.admin_token,
            "QUOTAGATE_GATEWAY_URL": self._at.gateway,
            "QUOTAGATE_CONTROL_URL": self._at.control,
            "QUOTAGATE_STRIPE_SECRET_KEY": self._stripe.secret_key,
            "QUOTAGATE_STRIPE_WEBHOOK_SECRET": self._stripe.webhook_secret,
            "QUOTAGATE_STRIPE_API_URL": self._stripe.api_url,
        }

    def _regional(self, name: str) -> dict[str, str]:
        """What differs for a plane of another region than the first."""
        region = _region_of(name)
        if not isinstance(self._ledger, ledger_servers.Regions) or not region:
            return {}
        gateway, control, _ = self._further.at(region)
        return {
            "QUOTAGATE_REDIS_URL": self._ledger.urls[region],
            "QUOTAGATE_GATEWAY_URL": gateway,
            "QUOTAGATE_CONTROL_URL": control,
        }

    def _of_regions(self) -> dict[str, Any]:
        """By region, the addresses of its own."""
        if not isinstance(self._ledger, ledger_servers.Regions):
            return {}
        names = ("gateway", "control", "metrics")
        places = {regions.FIRST: (self._at.gateway, self._at.control, self._at.metrics)}
        places |= {region: self._further.at(region) for region in regions.OTHERS}
        return {
            "regions": {
                region: {**dict(zip(names, place, strict=True)), "redis": self._ledger.urls[region]}
                for region, place in places.items()
            }
        }

    def _token(self, org: str) -> str:
        return token_mint.mint(org, self._secrets.jwt_secret, now=time.time(), ttl=DEMO_TOKEN_TTL)


def _further_names(options: Options) -> tuple[list[str], list[str]]:
    """Those of gateways and of control planes, without the first of each. Raises `StackError`."""
    if options.topology is not Topology.REGIONS:
        return further.numbered("gateway", options.gateways), further.numbered("control", options.control_planes)
    if options.gateways > 1 or options.control_planes > 1 or options.control_config is not None:
        raise StackError(
            "--topology regions has a gateway and a control plane in each region, with settings of their own: start it "
            "without --gateways, --control-planes and --control-config"
        )
    return [f"gateway-{region}" for region in regions.OTHERS], [f"control-{region}" for region in regions.OTHERS]


def _region_of(name: str) -> str:
    """Of a plane's name; empty for the first region's."""
    return name.partition("-")[2]
