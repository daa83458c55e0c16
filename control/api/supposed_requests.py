"""`/v1/explanations`, `/v1/routes`: what would be decided of a request now, and the routes that it may fall under."""

from collections.abc import Mapping
from datetime import datetime
from ipaddress import ip_address
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field

from control.access.callers import Caller
from control.access.permissions import Permission
from control.api.decision_views import DecisionView, TunnelView, decision_view, tunnel_view
from control.decisions import gateway_routes
from control.decisions.admittance import Supposed
from control.decisions.explained import KeyUnknown
from control.decisions.supposing import RouteUnknown, suppose
from control.documents import Body, View, Whole
from control.http.context import Context, Ctx
from control.http.guards import Allowed, Holding, Identified, refuse_others
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from control.moments import moment
from quota import problems
from quota.access import KEY_ID_PATTERN
from quota.calls.take import METERS_MAX
from quota.keys import METER_PATTERN, ORG_PATTERN
from quota.model import COST_MAX
from quota.routes import Price, Route, TellsCost, Told

explanations = APIRouter(prefix="/v1/explanations", tags=["decisions"], responses=DOCUMENTED)
supposed = APIRouter(prefix="/v1/decisions", tags=["decisions"], responses=DOCUMENTED)
routes = APIRouter(prefix="/v1/routes", tags=["decisions"], responses=DOCUMENTED)

_CHARGE: Final = rf"^{METER_PATTERN[1:-1]}:[0-9]{{1,13}}$"
SAID_MAX: Final = 100


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("must be an address, as in 203.0.113.7") from None


Cost = Annotated[int, Whole, Field(strict=True, ge=0, le=COST_MAX)]
OrgId = Annotated[str, Field(pattern=ORG_PATTERN)]
KeyId = Annotated[str, Field(pattern=KEY_ID_PATTERN)]
UserId = Annotated[str, Field(min_length=1, max_length=128)]
RouteName = Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,398}[!-~])?$")]
Method = Annotated[str, Field(pattern=r"^[A-Z][A-Z-]{0,31}$")]
Path = Annotated[str, Field(pattern=r"^/[!->@-~]{0,1000}$")]
Upgrade = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,32}(/[A-Za-z0-9.-]{1,16})?$")]
Host = Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{1,45}\])(:[0-9]{1,5})?$")]
Address = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_address)]
Said = Annotated[str, Field(min_length=1, max_length=128)]


class _Request(Body):
    """What a supposed request has, in a body and in a query alike."""

    key: KeyId | None = None
    """The id of the API key that it would carry; null: it carries a token."""
    user: UserId | None = None
    """The user of its token; of a key, its own user counts."""
    route: RouteName | None = None
    """The name of its route, as `GET /v1/routes` has it; or the request has a `path`."""
    method: Method | None = None
    """null: GET, and no scope of a key is compared with it."""
    path: Path | None = None
    """As a client would spell it, without query, as in `/v1/chat` or `/v1/files/a%2Fb`."""
    upgrade: Upgrade | None = None
    """The protocol that it asks to switch to, as in `websocket`. A GET alone does, and a route that offers it."""
    host: Host | None = None
    """The Host field, with `path`."""
    address: Address | None = None
    """The client's, for keys that name networks."""


class SupposedBody(_Request):
    """A request that is not sent. It says what it costs, or names a route, whose price counts then; or both."""

    org: OrgId
    charges: (
        Annotated[dict[Annotated[str, Field(pattern=METER_PATTERN)], Cost], Field(min_length=1, max_length=METERS_MAX)]
        | None
    ) = None
    """What it would cost: units by meter. null: what its route charges where nobody tells otherwise."""
    scopes: Annotated[list[Said], Field(default=[], max_length=SAID_MAX)]
    """Of its token, for routes that ask for some."""
    roles: Annotated[list[Said], Field(default=[], max_length=SAID_MAX)]


class SupposedQuery(_Request):
    """The same as a query."""

    org: Annotated[OrgId | None, Field(description="Of one organization. A token of one asks about its own alone.")] = (
        None
    )
    charge: Annotated[
        list[Annotated[str, Field(pattern=_CHARGE)]],
        Field(
            default=[],
            max_length=METERS_MAX,
            description="What it would cost: `meter:units`.",
            examples=[["api_calls:1"]],
        ),
    ]
    scope: Annotated[list[Said], Field(default=[], max_length=SAID_MAX)]
    role: Annotated[list[Said], Field(default=[], max_length=SAID_MAX)]

    def charges(self) -> dict[str, int] | None:
        """Raises Refusal."""
        charges: dict[str, int] = {}
        for each in self.charge:
            meter, _, units = each.rpartition(":")
            if meter in charges:
                raise invalid_field("query.charge", f"names the meter {meter} twice")
            charges[meter] = int(units)
        if any(units > COST_MAX for units in charges.values()):
            raise invalid_field("query.charge", f"a cost is a whole number up to {COST_MAX}")
        return charges or None


class RoutePriceView(View):
    units: int
    """Charged where nobody tells otherwise."""
    told_by: TellsCost
    """Who tells the units: `nobody` (they are fixed), a `header` or `query` parameter of the request, or the `answer`,
    which corrects them."""
    name: str
    """Of the field or the parameter."""
    least: int
    most: int


class RouteView(View):
    name: str
    host: str | None
    """null: any."""
    methods: list[str] | None
    """null: any. GET includes HEAD."""
    path: str
    """Whole segments from the start of the path."""
    exempt: bool
    """No token is asked for, and nothing is charged."""
    shadow: bool
    """What would be refused is only recorded."""
    prices: dict[str, RoutePriceView]
    """What a request costs, by meter."""
    scopes: list[str]
    """All of them are asked of a token."""
    roles: list[str]
    """Any of them is."""
    keys: bool
    """Whether API keys are let in; where scopes or roles are asked for, only those that name the route."""
    upgrades: list[str]
    """Protocols that a GET may switch to."""
    tunnel: TunnelView | None
    """null: an upgraded connection costs its opening."""
    encoded_slash: bool
    """`%2F` is a character of the path; where it is none, such a path is refused."""
    merge_slashes: bool


class GatewayRoutesView(View):
    digest: str
    """The same for all gateways with these routes."""
    started_at: datetime
    """When one with these routes has started last."""
    seen_at: datetime
    """When one has told them last; a gateway that runs does so each minute."""
    current: bool
    """false: none that runs has them."""
    environments: list[str]
    """Whose API keys are accepted; none: no keys are."""
    shadow_organizations: list[str]
    routes: list[RouteView]


class RoutesView(View):
    gateways: list[GatewayRoutesView]
    """Those that started last come first. Several while settings are being changed, and where gateways differ."""


@routes.get("", dependencies=[Allowed(Permission.DECISIONS_READ)])
async def list_routes(ctx: Ctx) -> RoutesView:
    """Lists the routes of the gateways that run, with their prices, as the gateways tell them. Where none runs: those
    that were told last."""
    now = ctx.clock()
    told = await gateway_routes.read_told(ctx.ledger.redis, now)
    return RoutesView(gateways=[_gateway_view(each, now) for each in told])


@explanations.get("", dependencies=[Holding(Permission.DECISIONS_READ)])
async def explain_supposed_request(
    ctx: Ctx, caller: Identified, asked: Annotated[SupposedQuery, Query()]
) -> DecisionView:
    """Explains what would be decided of a request now, as `POST /v1/decisions/explain` does. Nothing is charged."""
    org = _own(caller, asked.org)
    return await _explain(ctx, _supposed(org, asked.charges(), asked, asked.scope, asked.role), "query")


@supposed.post("/explain", dependencies=[Holding(Permission.DECISIONS_READ)])
async def explain_hypothetical_request(body: SupposedBody, ctx: Ctx, caller: Identified) -> DecisionView:
    """Explains what would be decided of a request now: its route, its token or key, each rule of the ledger, the
    balances before and after, and the smallest change that would admit it. Nothing is charged."""
    refuse_others(caller, body.org)
    return await _explain(ctx, _supposed(body.org, body.charges, body, body.scopes, body.roles), "body")


async def _explain(ctx: Context, asked: Supposed, where: str) -> DecisionView:
    if asked.charges is None and not asked.names_route:
        field = "charge" if where == "query" else "charges"
        raise invalid_field(f"{where}.{field}", "is required where no route and no path is named")
    if asked.route is not None and (asked.path is not None or asked.host is not None):
        raise invalid_field(f"{where}.route", "is named, so that the request has no path and no host beside it")
    if asked.host is not None and asked.path is None:
        raise invalid_field(f"{where}.host", "says nothing without a path")
    try:
        return decision_view(await suppose(ctx.db, ctx.ledger, ctx.clock, asked))
    except KeyUnknown as e:
        raise Refusal(problems.NOT_FOUND, "The organization has no such API key.") from e
    except RouteUnknown as e:
        raise Refusal(problems.NOT_FOUND, str(e)) from e


def _own(caller: Caller, org: str | None) -> str:
    """The organization that is asked about. Raises Refusal."""
    own = org or caller.org
    if own is None:
        raise invalid_field("query.org", "is required with a token that belongs to no organization")
    refuse_others(caller, own)
    return own


def _supposed(
    org: str, charges: Mapping[str, int] | None, asked: _Request, scopes: list[str], roles: list[str]
) -> Supposed:
    return Supposed(
        org,
        charges,
        asked.key,
        asked.user,
        asked.route,
        asked.method,
        asked.host,
        asked.path,
        asked.address,
        tuple(scopes),
        tuple(roles),
        asked.upgrade,
    )


def _gateway_view(told: Told, now: float) -> GatewayRoutesView:
    return GatewayRoutesView(
        digest=told.digest,
        started_at=moment(told.started_s),
        seen_at=moment(told.seen_s),
        current=told.is_current(now),
        environments=list(told.routes.environments),
        shadow_organizations=list(told.routes.shadow_organizations),
        routes=[_route_view(each) for each in told.routes.routes],
    )


def _route_view(route: Route) -> RouteView:
    return RouteView(
        name=route.name,
        host=route.host,
        methods=None if route.methods is None else list(route.methods),
        path=route.path,
        exempt=route.exempt,
        shadow=route.shadow,
        prices={meter: _price_view(price) for meter, price in route.prices.items()},
        scopes=list(route.scopes),
        roles=list(route.roles),
        keys=route.keys,
        upgrades=list(route.upgrades),
        tunnel=None if route.tunnel is None else tunnel_view(route.tunnel),
        encoded_slash=route.encoded_slash,
        merge_slashes=route.merge_slashes,
    )


def _price_view(price: Price) -> RoutePriceView:
    return RoutePriceView(units=price.units, told_by=price.told_by, name=price.name, least=price.least, most=price.most)
