"""Everything an operator can decide about the gateway: the shape of `config/gateway.yaml`."""

from collections.abc import Iterator
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from common.settings_file import Location, SettingsConflict, SettingsModel
from gateway.settings.clients import ClientTimeouts, Cors, ForwardAuth, Forwarding, Limits
from gateway.settings.listener import Listen
from gateway.settings.observing import AccessLogSettings, Management, Refusals, Telemetry, Trace
from gateway.settings.outages import DegradedSettings
from gateway.settings.redis import Redis
from gateway.settings.rewriting import TokenSources
from gateway.settings.route import RouteSettings
from gateway.settings.upstreams import Upstream
from gateway.settings.values import Count, Milliseconds, Name
from identity.settings import Auth
from quota.keys import ORG_PATTERN


class Shadow(SettingsModel):
    """Who is never refused for token, plan or quota, while decisions are made and counted as ever."""

    organizations: tuple[Annotated[str, Field(pattern=ORG_PATTERN)], ...] = ()
    """On all routes. A token that is not believed names no organization: only `shadow` of a route forwards that."""


class ToldIdentity(SettingsModel):
    """What upstreams are told of whom a request speaks for, beside X-Quota-Org."""

    key: bool = False
    """X-Quota-Key: the id of its API key."""
    user: bool = False
    """X-Quota-User: its user, percent-encoded as in usage events."""


BESIDE_REQUESTS: Final = frozenset(
    (
        "listen",
        "workers",
        "standby",
        "timeouts",
        "trace",
        "telemetry",
        "access_log",
        "refusals",
        "management",
        "drain",
    )
)
"""Settings that decide on no request. After a reload that changes others, a worker with the old ones takes none."""


class DrainSettings(SettingsModel):
    """How long a worker that ends goes on with what is under way: requests, streams and tunnels. At the end a request
    without an answer gets 503, a stream is cut, a WebSocket closed (1001), and each charge is settled."""

    stop_seconds: Annotated[float, Field(ge=0, le=86_400)] = 30
    """After SIGTERM."""
    idle_seconds: Annotated[float, Field(ge=0, le=86_400)] = 5
    """After SIGTERM, a connection on which nothing is under way waits so long for one more request, whose answer says
    that it is the last. After SIGHUP it waits as ever, for `timeouts.idle_seconds`; but where settings changed by which
    a request may end otherwise, it ends a quarter of a second later."""
    reload_seconds: Annotated[float, Field(ge=0, le=86_400)] = 3600
    """After SIGHUP, of a worker that another has taken the place of."""
    reloads_max: Count = 8
    """Old workers of so many reloads go on at once. Beyond, those of the oldest reload have `stop_seconds` left."""

    @model_validator(mode="after")
    def _reload_includes_the_stop(self) -> Self:
        if self.reload_seconds < self.stop_seconds:
            raise SettingsConflict(
                [(("reload_seconds",), f"must not be less than stop_seconds ({self.stop_seconds:g})")]
            )
        return self


class GatewaySettings(SettingsModel):
    """The gateway's settings."""

    listen: Listen = Listen()
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that share the port."""
    standby: bool = True
    """Whether a process that has loaded everything waits, so that a worker that dies is replaced at once and not after
    the half second or more that loading takes. It needs the memory of an idle worker, and no processor."""
    redis: Redis
    hydrate_timeout_ms: Milliseconds = 2000
    """How long a request waits for the control plane to load an organization that Redis does not know."""
    auth: Auth
    tokens: TokenSources = TokenSources()
    identity: ToldIdentity = ToldIdentity()
    upstreams: Annotated[dict[Name, Upstream], Field(min_length=1)]
    timeouts: ClientTimeouts = ClientTimeouts()
    limits: Limits = Limits()
    forwarded: Forwarding = Forwarding()
    trace: Trace = Trace()
    telemetry: Telemetry = Telemetry()
    cors: Cors = Cors()
    access_log: AccessLogSettings = AccessLogSettings()
    refusals: Refusals = Refusals()
    management: Management = Management()
    forward_auth: ForwardAuth = ForwardAuth()
    shadow: Shadow = Shadow()
    degraded: DegradedSettings = DegradedSettings()
    drain: DrainSettings = DrainSettings()
    routes: Annotated[tuple[RouteSettings, ...], Field(min_length=1)]
    upgrade_url: Annotated[str, Field(pattern=r"^https?://[!-~]+$")] | None = None
    """Where a 402 sends the caller to buy more."""

    @property
    def counts_are_read(self) -> bool:
        """Whether anybody reads metrics."""
        return self.management.port is not None or self.telemetry.metrics

    @model_validator(mode="after")
    def _routes_hold_together(self) -> Self:
        faults = [*self._unknown_upstreams(), *self._ambiguous_routes(), *self._unjournaled_routes()]
        if self.telemetry.access_log and not (self.access_log.enabled and self.telemetry.endpoint):
            faults.append((("telemetry", "access_log"), "needs access_log.enabled, and an endpoint"))
        if faults:
            raise SettingsConflict(faults)
        return self

    def _unknown_upstreams(self) -> Iterator[tuple[Location, str]]:
        names = ", ".join(self.upstreams)
        for index, route in enumerate(self.routes):
            if route.upstream not in self.upstreams:
                yield (
                    ("routes", index, "upstream"),
                    f'no upstream is named "{route.upstream}" (known: {names})',
                )

    def _unjournaled_routes(self) -> Iterator[tuple[Location, str]]:
        if self.degraded.journal is None:
            for index, route in enumerate(self.routes):
                if route.degraded == "allow":
                    yield ("routes", index, "degraded"), "allow needs a directory: set degraded.journal"

    def _ambiguous_routes(self) -> Iterator[tuple[Location, str]]:
        seen: dict[tuple[str | None, str], list[tuple[int, frozenset[str] | None]]] = {}
        for index, route in enumerate(self.routes):
            methods = None if route.methods is None else frozenset(route.methods)
            others = seen.setdefault((route.host, route.path.rstrip("/")), [])
            for other, taken in others:
                if methods == taken or (methods and taken and methods & taken):
                    yield ("routes", index), f"fits the same requests as routes[{other}]"
            others.append((index, methods))
