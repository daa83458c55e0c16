"""What gateways refused, why any request was decided as it was, and what would be decided of one now."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Path, Query
from pydantic import ValidationError
from starlette.responses import Response

from control.access.permissions import Permission
from control.api.decision_views import DecisionView, TunnelView
from control.api.decisions import CURSOR, explain_decision, list_refusals
from control.api.supposed_requests import RoutePriceView, SupposedQuery, explain_supposed_request, list_routes
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.rendering import redirect
from control.console.frame.sections import Section, section
from control.http.context import Ctx
from quota.access import is_key_id
from quota.keys import is_org
from quota.routes import TellsCost, TunnelUnit

router = Pages("/console/decisions")

LISTED: Final = 50
VERDICTS: Final = (
    ("", "Any reason"),
    ("exhausted", "Quota exhausted"),
    ("refused_from_memory", "Quota exhausted, repeated"),
    ("cost_above_limit", "Costs more than the quota"),
    ("rate_limited", "Rate limit"),
    ("concurrency_limited", "Concurrent requests"),
    ("not_entitled", "No active plan"),
    ("not_in_plan", "Meter not in the plan"),
    ("pending", "Plan not loaded"),
    ("ledger_unavailable", "Redis away"),
    ("token_missing", "No token"),
    ("token_expired", "Token expired"),
    ("token_key_unknown", "Key unknown"),
    ("token_key_revoked", "Key revoked"),
    ("token_key_scope", "Key not for this"),
)
_ID: Final = re.compile(r"[!-.0-~]{1,200}\Z")
_WRONG: Final[Mapping[str, str]] = {
    "org": "The organization is no organization's id.",
    "route": "The route is no route's name.",
    "method": "The method must be one word, as in POST.",
    "host": "The host must be a name or an address, with or without a port.",
    "path": "The path must begin with /, and have no query, no blanks and no characters beyond ASCII.",
    "upgrade": "The upgrade must be a protocol's name, as in websocket.",
    "charge": "The cost must be meter:units, as in api_calls:1; several with blanks between.",
    "key": "The key is no key's id: it has 12 letters and digits.",
    "user": "The user must have at most 128 characters.",
    "address": "The client's address must be an address, as in 203.0.113.7.",
}
Text = Annotated[str, Query(max_length=200)]


@router.page("", permission=Permission.DECISIONS_READ, twin="/v1/decisions")
async def show_refusals(
    ctx: Ctx,
    viewer: Viewing,
    id: Text = "",  # noqa: A002 - it is what people look for, and stands in the address
    org: Text = "",
    verdict: Text = "",
    key: Text = "",
    before: Annotated[str | None, Query(pattern=CURSOR)] = None,
) -> Response:
    """Refused requests. An id leads to its decision."""
    wanted = id.strip()
    if _ID.match(wanted):
        return redirect(f"/console/decisions/{wanted}")
    org, key = org.strip(), key.strip()
    faults = [
        fault
        for fault in (
            "" if not org or is_org(org) else "That is no organization's id.",
            "" if not key or is_key_id(key) else "That is no key's id: it has 12 letters and digits.",
            "" if not wanted else "That is no request's id.",
        )
        if fault
    ]
    found = await section(
        list_refusals(
            ctx,
            viewer.caller,
            org=org if is_org(org) else None,
            verdict=verdict or None,
            key=key if is_key_id(key) else None,
            before=before,
            limit=LISTED,
        )
    )
    known = VERDICTS if verdict in dict(VERDICTS) else (*VERDICTS, (verdict, verdict.replace("_", " ")))
    return viewer.page(
        "decisions/list.html",
        found=found,
        faults=faults,
        verdicts=known,
        names=dict(known),
        cost=cost_of,
        given={"id": wanted, "org": org, "verdict": verdict, "key": key},
        before=before,
    )


@router.page("/suppose", permission=Permission.DECISIONS_READ, twin="/v1/explanations")
async def suppose(
    ctx: Ctx,
    viewer: Viewing,
    org: Text = "",
    route: Annotated[str, Query(max_length=400)] = "",
    method: Text = "",
    host: Annotated[str, Query(max_length=260)] = "",
    path: Annotated[str, Query(max_length=1001)] = "",
    charge: Text = "",
    key: Text = "",
    user: Text = "",
    address: Text = "",
    upgrade: Text = "",
) -> Response:
    """What would be decided of a request now."""
    texts = {"route": route, "method": method.upper(), "host": host, "path": path, "key": key, "user": user}
    given = {name: text.strip() for name, text in {"org": org, "address": address, "upgrade": upgrade, **texts}.items()}
    asked = {name: text for name, text in given.items() if text}
    charges = [each for each in re.split(r"[\s,]+", charge) if each]
    query: SupposedQuery | None = None
    errors = dict[str, str]()
    try:
        query = SupposedQuery.model_validate({**asked, "charge": charges})
    except ValidationError as e:
        errors = {name: _WRONG[name] for each in e.errors() if (name := str(each["loc"][0])) in _WRONG}
    complete = bool(given["org"] and (charges or given["route"] or given["path"]))
    found: Section[DecisionView] | None = None
    if query is not None and complete:
        found = await section(explain_supposed_request(ctx, viewer.caller, query))
    told = await section(list_routes(ctx))
    gateways = [] if told.value is None else told.value.gateways
    routes = list(dict.fromkeys(each.name for gateway in gateways for each in gateway.routes))
    return viewer.page(
        "decisions/suppose.html",
        422 if errors else 200,
        given={**given, "charge": charge.strip()},
        errors=errors,
        found=found,
        told=told,
        routes=[("", "None: the cost alone"), *((name, name) for name in routes)],
        price=price_of,
        **_SHOWN,
    )


@router.page("/{request_id}", permission=Permission.DECISIONS_READ, twin="/v1/decisions/{request_id}")
async def show_decision(
    request_id: Annotated[str, Path(pattern=r"^[!-.0-~]{1,200}$")], ctx: Ctx, viewer: Viewing
) -> Response:
    """Why a request was decided as it was."""
    shown = await explain_decision(request_id, ctx, viewer.caller)
    return viewer.page("decisions/decision.html", request_id=request_id, decisions=shown.decisions, **_SHOWN)


def cost_of(charges: Mapping[str, int]) -> str:
    return ", ".join(f"{units:,} {meter}" for meter, units in charges.items())


def price_of(price: RoutePriceView) -> str:
    match price.told_by:
        case TellsCost.NOBODY:
            return f"{price.units:,}"
        case TellsCost.ANSWER:
            return f"{price.units:,} at first; the answer tells up to {price.most:,}"
        case _:
            return f"{price.units:,}; {price.told_by} {price.name} tells {price.least:,} to {price.most:,}"


def tunnel_of(tunnel: TunnelView) -> str:
    """What one unit costs that passes an upgraded connection."""
    unit = "message" if tunnel.per is TunnelUnit.MESSAGE else "begun mebibyte"
    return f"{cost_of(tunnel.charges)} for each {unit}"


def supposed_address(decision: DecisionView) -> str:
    """The page that says what would be decided of the same request now."""
    charge = " ".join(f"{meter}:{units}" for meter, units in decision.charges.items())
    asked = {"org": decision.org, "charge": charge, "key": decision.key, "user": decision.user}
    # A route that is no more would leave the question without an answer, so it is asked by what it charged.
    return "/console/decisions/suppose?" + urlencode({name: value for name, value in asked.items() if value})


_SHOWN: Final[Mapping[str, Any]] = {
    "cost": cost_of,
    "tunnel": tunnel_of,
    "again": supposed_address,
    "reasons": dict(VERDICTS),
}
