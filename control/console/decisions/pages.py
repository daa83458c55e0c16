"""What gateways refused, why any request was decided as it was, and what would be decided of one now."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Path, Query
from starlette.responses import Response

from control.access.permissions import Permission
from control.api.decision_views import DecisionView
from control.api.decisions import CURSOR, explain_decision, explain_supposed_request, list_refusals
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.rendering import redirect
from control.console.frame.sections import Section, section
from control.http.context import Ctx
from quota.access import is_key_id
from quota.calls.take import METERS_MAX
from quota.keys import is_org

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
_CHARGE: Final = re.compile(r"[a-z][a-z0-9_]{0,62}:[0-9]{1,13}\Z")
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
    ctx: Ctx, viewer: Viewing, org: Text = "", charge: Text = "", key: Text = "", user: Text = ""
) -> Response:
    """What would be decided of a request now."""
    given = {"org": org.strip(), "charge": charge.strip(), "key": key.strip(), "user": user.strip()}
    charges = re.split(r"[\s,]+", given["charge"])
    errors = {}
    if given["org"] and not is_org(given["org"]):
        errors["org"] = "is no organization's id"
    if given["key"] and not is_key_id(given["key"]):
        errors["key"] = "is no key's id: it has 12 letters and digits"
    if given["charge"] and (len(charges) > METERS_MAX or not all(map(_CHARGE.match, charges))):
        errors["charge"] = "must be meter:units, as in api_calls:1; several with blanks between"
    found: Section[DecisionView] | None = None
    if given["org"] and given["charge"] and not errors:
        asked = explain_supposed_request(
            ctx,
            viewer.caller,
            charge=charges,
            org=given["org"],
            key=given["key"] or None,
            user=given["user"] or None,
        )
        found = await section(asked)
    return viewer.page(
        "decisions/suppose.html", 422 if errors else 200, given=given, errors=errors, found=found, **_SHOWN
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


def supposed_address(decision: DecisionView) -> str:
    """The page that says what would be decided of the same request now."""
    charge = " ".join(f"{meter}:{units}" for meter, units in decision.charges.items())
    asked = {"org": decision.org, "charge": charge, "key": decision.key, "user": decision.user}
    return "/console/decisions/suppose?" + urlencode({name: value for name, value in asked.items() if value})


_SHOWN: Final[Mapping[str, Any]] = {"cost": cost_of, "again": supposed_address}
