"""Everything an operator can decide about the gateway: the shape of `config/gateway.yaml`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from common.networks import Network
from common.redis_url import RedisUrl
from common.settings_file import Location, SettingsConflict, SettingsModel
from gateway.http.cors import checked_origin
from gateway.http.target import TargetRefused, canonical, canonical_path
from gateway.settings.metering import (
    Cost,
    HeaderCost,
    MeterCost,
    OnAbort,
    QueryCost,
    Refund,
    ReportedCost,
)
from gateway.settings.rewriting import (
    RequestHeaders,
    ResponseHeaders,
    RouteTokenSources,
    TokenSources,
    dashed,
)
from gateway.settings.upstreams import Count, Seconds, Upstream
from identity.settings import Auth
from quota.keys import METER_PATTERN, ORG_PATTERN, SHARDS_DEFAULT, SHARDS_MAX

_PROTOCOL: Final = r"^[a-z0-9!#$%&'*+.^_`|~-]{1,32}(/[a-z0-9.]{1,16})?$"  # in lower case: compared without case
LOCAL_PREFIX: Final = "/-"  # the gateway's own endpoints, never routed


def _prefix(path: str) -> str:
    try:
        canonical_form = canonical_path(path.encode()) if path.startswith("/") else b""
    except TargetRefused as error:
        raise ValueError(error.reason) from None
    if path.encode() != canonical_form:
        raise ValueError("must be an absolute path, spelt without `//`, dot segments and needless escapes")
    if ";" in path:
        raise ValueError("must hold no parameters (;)")
    if path == LOCAL_PREFIX or path.startswith(f"{LOCAL_PREFIX}/"):
        raise ValueError(f"{LOCAL_PREFIX}/ is the gateway's own")
    return path


def _moved(path: str) -> str:
    try:
        canonical_form = canonical_path(path.encode()) if path.startswith("/") else b""
    except TargetRefused as error:
        raise ValueError(error.reason) from None
    if path.encode() != canonical_form or path == "/":
        raise ValueError("must be an absolute path of at least one segment, spelt without needless escapes")
    return path.rstrip("/")


def _host(host: str) -> str:
    try:
        lower = canonical(b"/", host.encode()).authority.decode()
    except TargetRefused as error:
        raise ValueError(error.reason) from None
    if lower.endswith(tuple("0123456789")) and ":" in lower.rpartition("]")[2]:
        raise ValueError("is compared without its port: leave the port out")
    return lower


MovedPrefix = Annotated[str, AfterValidator(_moved)]
Port = Annotated[int, Field(ge=0, le=65535)]
Milliseconds = Annotated[int, Field(ge=1, le=600_000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Text = Annotated[str, Field(min_length=1)]
Meter = Annotated[str, Field(pattern=METER_PATTERN)]
Method = Annotated[str, Field(pattern=r"^[A-Z][A-Z-]{0,31}$")]


class Listen(SettingsModel):
    """Where clients connect."""

    host: Text = "127.0.0.1"
    port: Port = 8080
    """0 takes a free port."""


class Redis(SettingsModel):
    """The ledger's Redis."""

    url: RedisUrl
    """redis://, rediss:// (TLS) or unix://, with redis-py's options for the database and TLS (`db`, `ssl_certfile`, …);
    kept out of logs, since it can hold a password."""
    timeout_ms: Milliseconds = 200
    """No reply for so long and what is under way is refused with 503: beyond this the gateway would be the outage.
    What was charged without a reply is given back when Redis answers again."""
    budget_ms: Milliseconds = 50
    """Redis owes a reply for so long and further requests are not queued behind it: they are decided at once, as their
    route's `degraded` says, until it answers. Not below the pauses that Redis makes in your load."""
    shards: Annotated[int, Field(ge=1, le=SHARDS_MAX)] = SHARDS_DEFAULT
    """Fixed at installation and compared at start: another number would look for organizations where they are not."""
    durability: Literal["memory", "aof", "replica"] = "memory"
    """What an admitted request outlives (docs/durability.md). memory: what Redis' own settings keep. aof: it is on the
    disk before it is forwarded. replica: it is in the memory of replicas."""
    replicas: Annotated[int, Field(ge=1, le=16)] = 1
    """With `replica`: how many must have it."""
    durability_ms: Milliseconds = 100
    """With `aof` and `replica`: what is not confirmed within so long is not forwarded, and given back."""

    receipts_max: Annotated[int, Field(ge=1000)] = 1_000_000
    """Takes that a worker remembers until they are in PostgreSQL, some 30 bytes each: what a Redis that is flushed or
    replaced forgets is put back from them. Beyond, the oldest are forgotten, and counted."""
    unwritten_seconds_max: Annotated[float, Field(ge=10, le=86_400)] | None = None
    """A take waits for longer than this to be written to PostgreSQL, or `receipts_max` of them do: 503 until they are,
    so that a flush loses none. null: the gateway goes on, and events wait in Redis."""

    @model_validator(mode="after")
    def _waits_less_than_it_times_out(self) -> Self:
        if self.durability != "memory" and self.durability_ms >= self.timeout_ms:
            raise SettingsConflict(
                [(("durability_ms",), f"must be less than timeout_ms ({self.timeout_ms}), which ends a wait")]
            )
        return self

    @model_validator(mode="after")
    def _is_honoured(self) -> Self:
        faults: list[tuple[Location, str]] = []
        if self.replicas > 1 and self.durability != "replica":
            faults.append((("replicas",), f"is for durability replica, and it is {self.durability}"))
        if self.budget_ms > self.timeout_ms and "budget_ms" in self.model_fields_set:
            faults.append((("budget_ms",), f"must not be more than timeout_ms ({self.timeout_ms}), which ends a wait"))
        if faults:
            raise SettingsConflict(faults)
        return self


class ClientTimeouts(SettingsModel):
    """How long a client may take."""

    head_seconds: Seconds = 10
    """From a request's first byte to the end of its head; 408 after it."""
    idle_seconds: Seconds = 75
    """Between two requests of a connection."""
    body_idle_seconds: Seconds = 30
    """Between two bytes of a request's body; 408 after it."""
    tunnel_idle_seconds: Seconds = 3600
    """Without a byte of either side for so long and an upgraded connection is closed."""


class Limits(SettingsModel):
    """How much a client may send."""

    head_bytes_max: Annotated[int, Field(ge=1024, le=1_048_576)] = 65_536
    """Request line and header section; 431 beyond."""
    header_fields_max: Annotated[int, Field(ge=8, le=1000)] = 100
    """431 beyond."""
    connections_max: Count = 16_384
    """Client connections, in each worker."""
    body_bytes_max: Annotated[int, Field(ge=0)] | None = None
    """413 beyond; null: no limit, bodies are streamed and cost no memory."""


class Forwarding(SettingsModel):
    """Proxies in front of the gateway, and how the upstream learns who the client is."""

    trusted: tuple[Network, ...] = ()
    """Addresses or networks (10.0.0.0/8, 2001:db8::/32) whose X-Forwarded-For, -Proto and -Host are kept and continued;
    from all others they are replaced. A proxy that is named here must write them itself."""
    rfc7239: bool = False
    """Whether `Forwarded` (RFC 7239) is sent as well, and believed of trusted proxies. Only if those write or remove
    it: one that passes it on from its clients would have theirs believed."""


class Trace(SettingsModel):
    """W3C Trace Context. A client's traceparent always goes on unchanged."""

    create: bool = False
    """Whether a request without a valid traceparent gets one. An upstream that begins its own traces decides itself
    which are sampled; this takes the decision from it."""
    sampled: bool = True
    """The flag of those that are made: most tracers record a trace only if it is set."""


class Cors(SettingsModel):
    """Which pages may read a refusal. The upstream decides on its own answers."""

    allowed_origins: tuple[Annotated[str, AfterValidator(checked_origin)], ...] = ()
    """Origins such as https://app.example.com, or `*` for all. https://*.example.com is those with one label or more in
    place of the asterisk, and not https://example.com."""
    allow_credentials: bool = False
    """Whether pages that ask with cookies may read a refusal, too: as the upstream has it for its answers."""

    @model_validator(mode="after")
    def _credentials_of_somebody(self) -> Self:
        if self.allow_credentials and "*" in self.allowed_origins:
            raise SettingsConflict(
                [(("allow_credentials",), "is not for everybody (*), as browsers have it: name the origins")]
            )
        return self


class AccessLogSettings(SettingsModel):
    """One JSON line for each finished exchange."""

    enabled: bool = True
    path: Path | None = None
    """A file, opened again on SIGHUP; null: standard output."""
    query: bool = False
    """Whether the query is logged as well: it may hold what must not be kept."""


class Management(SettingsModel):
    """Where metrics of all workers are read: /metrics."""

    host: Text = "127.0.0.1"
    port: Port | None = None
    """null: nowhere; 0 takes a free one."""


class ForwardAuth(SettingsModel):
    """Decisions for proxies that forward themselves: /-/authorize/nginx and its like (docs/forward-auth.md)."""

    trusted: tuple[Network, ...] = ()
    """Addresses of those proxies, as 10.0.0.7 or 10.0.0.0/24: they are believed what the client asked for. Others are
    answered 404, and so is everyone while none is named."""


class Shadow(SettingsModel):
    """Who is never refused for token, plan or quota, while decisions are made and counted as ever."""

    organizations: tuple[Annotated[str, Field(pattern=ORG_PATTERN)], ...] = ()
    """On all routes. A token that is not believed names no organization: only `shadow` of a route forwards that."""


class TunnelCharge(SettingsModel):
    """What an upgraded connection costs beyond its opening, which costs `meters`."""

    charge: Annotated[dict[Meter, Cost], Field(min_length=1)]
    """What one unit costs."""
    per: Literal["message", "mebibyte"]
    """A message of a WebSocket client, or each begun mebibyte of both directions; sent on when it is paid."""


class DrainSettings(SettingsModel):
    """How long a worker that ends goes on with what is under way: requests, streams and tunnels. At the end a request
    without an answer gets 503, a stream is cut, a WebSocket closed (1001), and each charge is settled."""

    stop_seconds: Annotated[float, Field(ge=0, le=86_400)] = 30
    """After SIGTERM."""
    reload_seconds: Annotated[float, Field(ge=0, le=86_400)] = 3600
    """After SIGHUP, of a worker that another has taken the place of."""
    reloads_max: Count = 8
    """Old workers of so many reloads go on at once; beyond, those of the oldest have `stop_seconds` left."""

    @model_validator(mode="after")
    def _reload_includes_the_stop(self) -> Self:
        if self.reload_seconds < self.stop_seconds:
            raise SettingsConflict(
                [(("reload_seconds",), f"must not be less than stop_seconds ({self.stop_seconds:g})")]
            )
        return self


class Budget(SettingsModel):
    """What one worker may forward without a charge before the ledger has it: units of all meters of the requests."""

    units_per_org: Count = 1000
    units_total: Count = 100_000


class DegradedSettings(SettingsModel):
    """Routes with `degraded: allow`, while Redis is away."""

    journal: Path | None = None
    """A directory on local disk for what is forwarded without a charge. It is charged when Redis is back; what a worker
    leaves behind, the next one replays. Not shared between machines."""
    budget: Budget = Budget()
    """503 beyond."""
    max_seconds: Annotated[float, Field(gt=0)] = 300
    """Of one outage; 503 after it."""
    seen_seconds: Annotated[float, Field(gt=0)] = 3600
    """Only organizations that the worker has seen admitted on the route within this time, and not refused since."""


class RouteSettings(SettingsModel):
    """One rule. Of those that fit a request: with a host before without, then the longest path."""

    name: Name | None = None
    """For metrics and logs; by default methods, host and path."""
    host: Annotated[Text, AfterValidator(_host)] | None = None
    """Only requests to this host, compared without case and port; null: any."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] | None = None
    """Only these; GET includes HEAD; null: any."""
    path: Annotated[Text, AfterValidator(_prefix)]
    """Whole segments from the start of the path: /v1 and /v1/ both hold /v1, /v1/ and /v1/things, and not /v1x."""
    upstream: Name
    """A name under `upstreams`."""
    strip_prefix: MovedPrefix | None = None
    """Segments from the start of `path` that do not go upstream: /api of /api/v1."""
    add_prefix: MovedPrefix | None = None
    """What goes before the path, when `strip_prefix` is off it."""
    encoded_slash: Literal["reject", "keep"] = "reject"
    """`%2F` in the path: 400, or a character like others, and never a separator, here as upstream. A path that falls
    under another route for whoever decodes it is 400 all the same. reject is for upstreams that decode it."""
    merge_slashes: bool = True
    """Whether `//` is sent as `/`. false: as it came, and 400 where the path would fall under another route with `/`,
    or begins with `//`, which some read as a host, or holds dot segments as well."""
    request_headers: RequestHeaders = RequestHeaders()
    response_headers: ResponseHeaders = ResponseHeaders()
    tokens: RouteTokenSources | None = None
    """null: as the general `tokens` has it."""
    meters: dict[Meter, MeterCost] = Field(default={"api_calls": 1})
    """What one request costs: a number, {header: X-Cost, max: 1000}, {query: n, max: 1000}, or
    {reported: {json: usage.total_tokens}, estimate: 100, max: 100000} (also {header: …} or {trailer: …}; of json also a
    list of paths, the first of which that is told counts, and {sum: [...]} of paths and lists)."""
    refund: Refund = Refund()
    on_abort: OnAbort | None = None
    """Of a request that was sent whole, when its client leaves. null: the upstream is left as well."""
    exempt: bool = False
    """No token is asked for and nothing is charged; the request is forwarded."""
    body_bytes_max: Annotated[int, Field(ge=0)] | None = None
    """413 beyond, before anything is charged where Content-Length tells; null: as `limits` has it."""
    idempotency: bool = True
    """Requests with the same Idempotency-Key, method, target and cost are charged once in 24 hours, and all forwarded:
    false where the upstream does the work of each."""
    shadow: bool = False
    """Decide, charge, record and count, but refuse nothing for token, plan or quota, nor while Redis is away."""
    upgrades: tuple[Annotated[str, Field(pattern=_PROTOCOL)], ...] = ()
    """Protocols, such as websocket, that a GET may switch to. Others are ignored, as RFC 9110 section 7.8 allows, and
    the request is answered in HTTP/1.1."""
    tunnel: TunnelCharge | None = None
    """null: an upgraded connection costs its opening."""
    degraded: Literal["deny", "allow"] = "deny"
    """While Redis is away or slow: 503, or forwarded within the budget of `degraded` and charged afterwards."""

    @model_validator(mode="after")
    def _tunnels(self) -> Self:
        faults: list[tuple[Location, str]] = []
        if "h2c" in self.upgrades or "h2" in self.upgrades:
            faults.append((("upgrades",), "HTTP/2 in a tunnel would pass uncharged and unchecked"))
        if self.upgrades and self.methods is not None and "GET" not in self.methods:
            faults.append((("upgrades",), "an upgrade is asked for by GET, which is not among the methods"))
        if self.tunnel is not None:
            if not self.upgrades:
                faults.append((("tunnel",), "charges for upgrades, and the route allows none"))
            elif self.exempt:
                faults.append((("tunnel",), "an exempt route charges nothing: leave one of the two out"))
            elif self.tunnel.per == "message" and self.upgrades != ("websocket",):
                faults.append((("tunnel", "per"), "messages are those of websocket, the only upgrade there may be"))
        if faults:
            raise SettingsConflict(faults)
        return self

    @model_validator(mode="after")
    def _rewrites(self) -> Self:
        faults: list[tuple[Location, str]] = []
        if self.strip_prefix is not None and not f"{self.path.rstrip('/')}/".startswith(f"{self.strip_prefix}/"):
            faults.append((("strip_prefix",), f"must be {self.path} or whole segments of its start"))
        costs = {dashed(cost.header): meter for meter, cost in self.meters.items() if isinstance(cost, HeaderCost)}
        for at, name in self.request_headers.names:
            if (meter := costs.get(dashed(name))) is not None:
                faults.append((("request_headers", *at), f"tells what the request costs (meters.{meter})"))
        if self.tokens is not None:
            parameters = {cost.query: meter for meter, cost in self.meters.items() if isinstance(cost, QueryCost)}
            if self.tokens.query is not None and self.tokens.query in parameters:
                told = f"tells what the request costs (meters.{parameters[self.tokens.query]})"
                faults.append((("tokens", "query"), told))
            if self.tokens.header is not None and (meter := costs.get(dashed(self.tokens.header))) is not None:
                faults.append((("tokens", "header"), f"tells what the request costs (meters.{meter})"))
            if self.tokens.subprotocol is not None and "websocket" not in self.upgrades:
                faults.append((("tokens", "subprotocol"), "is for routes with upgrades: [websocket]"))
        if faults:
            raise SettingsConflict(faults)
        return self

    @model_validator(mode="after")
    def _charged_or_exempt(self) -> Self:
        if self.exempt and "meters" in self.model_fields_set and self.meters:
            raise SettingsConflict([(("meters",), "an exempt route charges nothing: leave one of the two out")])
        if self.exempt and self.shadow:
            raise SettingsConflict([(("shadow",), "an exempt route refuses nothing: leave one of the two out")])
        if not self.exempt and not self.meters:
            raise SettingsConflict([(("meters",), "name at least one meter, or set exempt: true")])
        if self.on_abort is not None and not any(isinstance(cost, ReportedCost) for cost in self.meters.values()):
            raise SettingsConflict(
                [(("on_abort",), "no meter is `reported`, so there is nothing to read an answer for")]
            )
        if self.exempt and "degraded" in self.model_fields_set:
            raise SettingsConflict([(("degraded",), "an exempt route does not need Redis: leave one of the two out")])
        return self


class GatewaySettings(SettingsModel):
    """The gateway's settings."""

    listen: Listen = Listen()
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that share the port."""
    standby: bool = True
    """A process that has loaded everything and waits, so that a worker that dies is replaced at once, not after the
    second or more that loading takes. It has the memory of an idle worker, and uses no processor."""
    redis: Redis
    hydrate_timeout_ms: Milliseconds = 2000
    """How long a request waits for the control plane to load an organization that Redis does not know."""
    auth: Auth
    tokens: TokenSources = TokenSources()
    upstreams: Annotated[dict[Name, Upstream], Field(min_length=1)]
    timeouts: ClientTimeouts = ClientTimeouts()
    limits: Limits = Limits()
    forwarded: Forwarding = Forwarding()
    trace: Trace = Trace()
    cors: Cors = Cors()
    access_log: AccessLogSettings = AccessLogSettings()
    management: Management = Management()
    forward_auth: ForwardAuth = ForwardAuth()
    shadow: Shadow = Shadow()
    degraded: DegradedSettings = DegradedSettings()
    drain: DrainSettings = DrainSettings()
    routes: Annotated[tuple[RouteSettings, ...], Field(min_length=1)]
    upgrade_url: Annotated[str, Field(pattern=r"^https?://[!-~]+$")] | None = None
    """Where a 402 sends the caller to buy more."""

    @model_validator(mode="after")
    def _routes_hold_together(self) -> Self:
        if faults := [*self._unknown_upstreams(), *self._ambiguous_routes(), *self._unjournaled_routes()]:
            raise SettingsConflict(faults)
        return self

    def _unknown_upstreams(self) -> Iterator[tuple[Location, str]]:
        known = ", ".join(self.upstreams)
        for index, route in enumerate(self.routes):
            if route.upstream not in self.upstreams:
                yield (
                    ("routes", index, "upstream"),
                    f'no upstream is named "{route.upstream}" (known: {known})',
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
