"""One form for both sides, which is compared, and written to files. Pure.

A form is plain data as JSON has it. Times are UTC, to the second; what is null, and what is as it would be by default,
is left out.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from control.api.entitlements import EntitlementBody
from control.api.key_views import KeyTermsBody
from control.entitlements.plans import PlanTerms
from quotagate.configuration.document import KeyItem, OrganizationItem

Form = dict[str, Any]
SECTIONS = ("name", "shadow", "suspended", "entitlement", "grants", "caps", "alerts", "keys")

_ENTITLEMENT = tuple(EntitlementBody.model_fields)
_KEY = ("name", "environment", "enabled", *(name for name in KeyTermsBody.model_fields if name != "name"))


def plan_form(content: Mapping[str, Any]) -> Form:
    """Of a plan as the API shows it."""
    return PlanTerms.model_validate({name: content[name] for name in PlanTerms.model_fields}).model_dump(mode="json")


def wanted_plan(terms: PlanTerms) -> Form:
    return terms.model_dump(mode="json")


def organization_form(content: Mapping[str, Any]) -> Form:
    """Of an organization as `GET /v1/configuration/organizations` shows it."""
    organization, entitlement = content["organization"], content["entitlement"]
    settings = None if entitlement is None else entitlement["set"]
    form: Form = {"name": organization["name"], "shadow": organization["shadow"]}
    if settings is None and content["suspended"]:
        form["suspended"] = True
    return form | {
        "entitlement": settings and _entitlement(settings),
        "grants": sorted((grant_form(each) for each in content["grants"]), key=_order),
        "caps": dict(sorted(content["caps"].items())),
        "alerts": sorted(content["alerts"]),
        "keys": {each["id"]: _key(each) for each in sorted(content["keys"], key=_id)},
    }


def shown(form: Form, *, followed: bool, mirrored: bool, now: datetime) -> Form:
    """The part of an organization's form that belongs into a file. `followed`: its status follows payments;
    `mirrored`: its name follows the identity provider."""
    written = {name: form[name] for name in SECTIONS if name in form and not (mirrored and name == "name")}
    entitlement = form["entitlement"]
    if followed and entitlement is not None and entitlement["status"] != "suspended":
        written["entitlement"] = {name: value for name, value in entitlement.items() if name != "status"}
    written["keys"] = {key: each for key, each in form["keys"].items() if not is_past(each.get("expires_at"), now)}
    return written


def wanted_organization(item: OrganizationItem, current: Form | None) -> Form:
    """Of an organization as a file says it: only what it speaks of. What PUT would leave as it is comes from
    `current`, what the server has."""
    given, form = item.model_fields_set, Form()
    for section in SECTIONS:
        if section in given:
            form[section] = getattr(item, section)
    if item.entitlement is not None:
        form["entitlement"] = _wanted_entitlement(item.entitlement, (current or {}).get("entitlement"))
    if "grants" in given:
        form["grants"] = sorted((grant_form(each.model_dump(mode="json")) for each in item.grants or ()), key=_order)
    if "caps" in given:
        form["caps"] = dict(sorted((item.caps or {}).items()))
    if "alerts" in given:
        form["alerts"] = sorted(set(item.alerts or ()))
    if "keys" in given:
        form["keys"] = {key: wanted_key(each) for key, each in sorted((item.keys or {}).items())}
    return form


def grant_form(grant: Mapping[str, Any]) -> Form:
    expires_at = time_text(grant["expires_at"])
    return {"meter": grant["meter"], "units": grant["units"], "expires_at": expires_at, "reason": grant["reason"]}


def wanted_key(item: KeyItem) -> Form:
    form = _key(item.model_dump(mode="json") | {"state": "active" if item.enabled else "disabled"})
    if item.environment is None:
        form.pop("environment", None)
    return form


def is_past(at: str | None, now: datetime) -> bool:
    return at is not None and datetime.fromisoformat(at) <= now


def time_text(text: str) -> str:
    """`2027-01-01T00:00:00Z`, whatever its offset was."""
    return datetime.fromisoformat(text).astimezone(UTC).replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%SZ")


def _wanted_entitlement(body: EntitlementBody, current: Mapping[str, Any] | None) -> Form:
    content = body.model_dump(mode="json")
    before = current or {}
    for name in ("period", "period_anchor"):
        if content[name] is None:
            content[name] = before.get(name)
    if "status" not in body.model_fields_set and before.get("status", "suspended") != "suspended":
        content["status"] = before["status"]
    return _entitlement(content)


def _entitlement(content: Mapping[str, Any]) -> Form:
    form = {name: content[name] for name in _ENTITLEMENT if content.get(name) not in (None, {})}
    for meters in ("meters", "overage_max"):
        if meters in form:
            form[meters] = dict(sorted(form[meters].items()))
    if "rate" in form:
        form["rate"] = _rate(form["rate"])
    if "period_anchor" in form:
        form["period_anchor"] = time_text(form["period_anchor"])
    if period := form.get("period"):
        bounds: Sequence[str] = period.get("bounds") or ()
        form["period"] = (
            {"bounds": [time_text(bound) for bound in bounds]}
            if bounds
            else {"every": period.get("every") or 1, "unit": period["unit"]}
        )
    return form


def _key(content: Mapping[str, Any]) -> Form:
    quotas = sorted(content["quotas"], key=lambda quota: (quota["meter"], quota["window_seconds"] or 0))
    form = {name: content.get(name) for name in _KEY} | {"enabled": content["state"] != "disabled"}
    form["quotas"] = [{name: value for name, value in quota.items() if value is not None} for quota in quotas]
    form["scopes"], form["networks"] = sorted(content["scopes"]), sorted(content["networks"])
    if form["rate"] is not None:
        form["rate"] = _rate(form["rate"])
    if form["expires_at"] is not None:
        form["expires_at"] = time_text(form["expires_at"])
    return {name: value for name, value in form.items() if value not in (None, [])}


def _rate(rate: Mapping[str, Any]) -> Form:
    seconds = rate["seconds"]
    whole = int(seconds) if float(seconds).is_integer() else seconds
    return {"requests": rate["requests"], "seconds": whole, "burst": rate["burst"]}


def _order(grant: Mapping[str, Any]) -> tuple[str, str, int, str]:
    return grant["meter"], grant["expires_at"], grant["units"], grant["reason"]


def _id(key: Mapping[str, Any]) -> str:
    return str(key["id"])
