"""One entry under `routes`: which requests it fits, and what becomes of them."""

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from common.request_target import TargetRefused, canonical, canonical_path
from common.settings_file import Location, SettingsConflict, SettingsModel
from gateway.settings.metering import Cost, HeaderCost, MeterCost, OnAbort, QueryCost, Refund, ReportedCost
from gateway.settings.rewriting import RequestHeaders, ResponseHeaders, RouteTokenSources, dashed
from gateway.settings.values import Meter, Name, Text

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
Method = Annotated[str, Field(pattern=r"^[A-Z][A-Z-]{0,31}$")]


Scope = Annotated[str, Field(pattern=r"^[!#-\[\]-~]{1,128}$")]  # RFC 6749 section 3.3
Role = Annotated[str, Field(min_length=1, max_length=128)]


class Required(SettingsModel):
    """What a token must say beside its organization; who lacks it is 403. So is an API key, unless `keys` lets it
    in."""

    scopes: tuple[Scope, ...] = ()
    """All of them, in the claim that `auth` names (`scopes_claim`)."""
    roles: tuple[Role, ...] = ()
    """Any of them, in the claim that `auth` names (`roles_claim`)."""
    keys: bool = False
    """Whether API keys are let in that name the route in their scopes (`route:<name>`). An organization's own admins
    make such keys."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not (self.scopes or self.roles):
            raise SettingsConflict([((), "name scopes, roles, or both")])
        return self


class TunnelCharge(SettingsModel):
    """What an upgraded connection costs beyond its opening, which costs `meters`."""

    charge: Annotated[dict[Meter, Cost], Field(min_length=1)]
    """What one unit costs."""
    per: Literal["message", "mebibyte"]
    """A message of a WebSocket client, or each begun mebibyte of both directions; sent on when it is paid."""


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
    """What goes before the path, after `strip_prefix` was removed."""
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
    require: Required | None = None
    """Scopes and roles, for a route that not every token of an organization may use."""
    meters: dict[Meter, MeterCost] = Field(default={"api_calls": 1})
    """What one request costs: a number, {header: X-Cost, max: 1000}, {query: n, max: 1000}, or
    {reported: {json: usage.total_tokens}, estimate: 100, max: 100000} (also {header: …} or {trailer: …}; of json also a
    list of paths, of which the first that the answer has counts, and {sum: [...]} of paths and lists)."""
    refund: Refund = Refund()
    on_abort: OnAbort | None = None
    """Of a request that was sent whole, when its client leaves. null: the upstream is left as well."""
    exempt: bool = False
    """No token is asked for and nothing is charged; the request is forwarded."""
    body_bytes_max: Annotated[int, Field(ge=0)] | None = None
    """413 beyond, before anything is charged where there is a Content-Length; null: as `limits` has it."""
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

    @property
    def label(self) -> str:
        """What metrics, logs and the scopes of keys call it."""
        return self.name or f"{','.join(self.methods or ())} {self.host or ''}{self.path}".lstrip()

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
                message = f"tells what the request costs (meters.{parameters[self.tokens.query]})"
                faults.append((("tokens", "query"), message))
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
        if self.exempt and self.require is not None:
            raise SettingsConflict([(("require",), "an exempt route asks for no token: leave one of the two out")])
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
