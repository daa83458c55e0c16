"""At which share of an allowance people want to hear of it, and when that was so."""

import re
from typing import Annotated

from pydantic import AfterValidator
from starlette.responses import Response

from control.access.permissions import Permission
from control.api.alerts import PERCENT_MAX, AlertsBody, AlertsView, get_usage_alerts, put_usage_alerts
from control.console.frame.forms import Filled, blank, read_form
from control.console.frame.rendering import redirect
from control.console.frame.sections import section
from control.documents import Body
from control.http.context import Ctx
from control.portal.pages import Viewing, portal_pages

router = portal_pages("/alerts")


def _listed(text: str) -> str:
    percents = re.findall(r"\d{1,5}", text)
    if re.fullmatch(r"[\d\s,;%]*", text) is None or any(not 1 <= int(each) <= PERCENT_MAX for each in percents):
        raise ValueError(f"must be numbers from 1 to {PERCENT_MAX} with commas between, as in 50, 90")
    if len(set(percents)) > 10:
        raise ValueError("must be at most 10 numbers")
    return text


class AlertsForm(Body):
    percents: Annotated[str, AfterValidator(_listed)] = ""


@router.page("", permission=Permission.ALERTS_READ, twin="/v1/organizations/{org}/alerts")
async def show(ctx: Ctx, viewer: Viewing) -> Response:
    """What was chosen, and what was reached."""
    found = await section(get_usage_alerts(viewer.org, ctx))
    chosen = ", ".join(map(str, found.value.percents)) if isinstance(found.value, AlertsView) else ""
    return viewer.page("portal/alerts.html", found=found, form=blank(percents=chosen))


@router.action("", permission=Permission.ALERTS_WRITE)
async def choose(ctx: Ctx, viewer: Viewing) -> Response:
    """Chooses other percentages."""
    form: Filled[AlertsForm] = await read_form(viewer.request, AlertsForm)
    if form.value is None:
        found = await section(get_usage_alerts(viewer.org, ctx))
        return viewer.page("portal/alerts.html", 422, found=found, form=form)
    percents = sorted({int(each) for each in re.findall(r"\d+", form.value.percents)})
    await put_usage_alerts(viewer.org, AlertsBody(percents=percents), ctx, viewer.author)
    return redirect("/portal/alerts", done="The alerts are set.")
