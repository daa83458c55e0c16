"""`/v1/entitlements/{org}`: what an organization may use."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

import structlog
from fastapi import APIRouter, Header, Response
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from control.access.permissions import Permission
from control.api.entitlement_views import EntitlementView, set_of, view
from control.db import StoreUnavailable
from control.documents import Body, Moment, Whole
from control.entitlements import changes, stored_state
from control.entitlements.changes import EntitlementMissing, Versions, Wanted
from control.entitlements.everywhere import everywhere, with_other_regions
from control.entitlements.plans import Meter, PlanCode, Units
from control.entitlements.rates import RateBurst, RateRequests, RateSeconds
from control.entitlements.restore import written_counters
from control.entitlements.standing import standing_from_postgres
from control.http.context import Context, Ctx
from control.http.guards import Allowed, Alone, CallAuthor, OfOrganization, Org, refuse_alone
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from control.journal import Author
from control.organizations.store import OrganizationUnknown
from quota import keys, problems
from quota.ledger import LedgerUnavailable
from quota.model import CONCURRENT_MAX, OveragePolicy, RateLimit, Status
from quota.periods import Rule, Unit

log = structlog.get_logger()
router = APIRouter(prefix="/v1/entitlements", tags=["entitlements"], responses=DOCUMENTED)

# RFC 9110 section 8.8.3. A proxy that compresses makes a strong tag a weak one, so that a weak one is taken as well.
_ENTITY_TAG = r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"'
_ENTITY_TAGS = re.compile(rf"[ \t,]*{_ENTITY_TAG}(?:[ \t]*,[ \t,]*{_ENTITY_TAG})*[ \t,]*")


def _anchor(at: datetime) -> datetime:
    if not datetime(1970, 1, 1, tzinfo=UTC) <= at < datetime(2100, 1, 1, tzinfo=UTC):
        raise ValueError("must be from 1970 to 2099")
    return at


class RateBody(Body):
    """`requests` every `seconds` on average, at most `burst` at once."""

    model_config = ConfigDict(strict=True)

    requests: Annotated[RateRequests, Whole]
    seconds: RateSeconds = 1
    burst: Annotated[RateBurst, Whole] = 1

    def value(self) -> RateLimit:
        return RateLimit(self.requests, self.seconds, self.burst)


class PeriodBody(Body):
    """How long periods are: a number of days, weeks or months each, or from one agreed bound to the next."""

    every: Annotated[int, Whole, Field(strict=True, ge=1)] | None = None
    """1, if only `unit` is given."""
    unit: Unit | None = None
    bounds: Annotated[list[Annotated[Moment, AfterValidator(_anchor)]], Field(min_length=2, max_length=500)] | None = (
        None
    )
    """The first second of each period, ascending, and the end of the last one. After it, nothing is admitted."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.bounds is None) == (self.unit is None):
            raise ValueError("either unit (and every) or bounds must be given")
        if self.bounds is not None and self.every is not None:
            raise ValueError("every goes with unit, not with bounds")
        self.rule()
        return self

    def rule(self) -> Rule:
        if self.bounds is not None:
            return Rule(bounds=tuple(int(bound.timestamp()) for bound in self.bounds))
        return Rule(self.every or 1, self.unit or Unit.MONTH)


class EntitlementBody(Body):
    """All of an organization's entitlement: what is left out is as the plan has it, and not as it was before.

    Only `period` and `period_anchor` stay as they were, so that a plan change moves no period."""

    plan: PlanCode
    status: Literal["active", "trialing", "grace", "suspended"] = "active"
    """A suspended organization is refused (402), whatever it pays, until an admin sets another status. To end an
    entitlement, DELETE it."""
    policy: OveragePolicy | None = None
    """HARD_STOP or METERED in place of the plan's."""
    meters: dict[Meter, Annotated[Units, Whole, Field(strict=True)]] = Field(default={}, max_length=100)
    """Allowances in place of the plan's, or of meters that the plan does not have: {"api_calls": 25000}."""
    overage_max: dict[Meter, Annotated[Units, Whole, Field(strict=True)]] = Field(default={}, max_length=100)
    """The units of a period that METERED may sell beyond the allowance: {"api_calls": 5000}."""
    rate: RateBody | None = None
    """A rate limit in place of the plan's."""
    concurrent_max: Annotated[int, Whole, Field(strict=True, ge=1, le=CONCURRENT_MAX)] | None = None
    """The number of requests that may be under way at once, in place of the plan's."""
    period_anchor: Annotated[Moment, AfterValidator(_anchor)] | None = None
    """Periods are counted from here; the calendar month by default. A change of the anchor begins a new period at
    once."""
    period: PeriodBody | None = None
    """How long periods are; a month by default. A change of the length begins a new period at once, with a full
    allowance."""

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_read(cls, content: Any) -> Any:
        """What GET returns can be sent as it is: `set` of it is what is set here, and the rest follows from that."""
        if not isinstance(content, dict) or "set" not in content:
            return content
        settings = content["set"]
        if not isinstance(settings, dict):
            raise ValueError("set must be an object, as GET returns it")
        if unknown := content.keys() - EntitlementView.model_fields.keys() - {"effective_at"}:
            raise ValueError(f"{min(unknown)} is not a member of what GET returns")
        if content.get("plan") != settings.get("plan"):
            raise ValueError("plan and set.plan differ: change the one in set")
        return settings | {name: content[name] for name in ("effective_at",) if name in content}

    def wanted(self) -> Wanted:
        return Wanted(
            plan=self.plan,
            status=Status[self.status.upper()],
            policy=self.policy,
            allowances=self.meters,
            overage_max=self.overage_max,
            rate=self.rate.value() if self.rate else None,
            concurrent_max=self.concurrent_max,
            period=self.period.rule() if self.period else None,
            period_anchor=int(self.period_anchor.timestamp()) if self.period_anchor else None,
        )


class ScheduledBody(EntitlementBody):
    effective_at: Annotated[Moment, AfterValidator(_anchor)] | None = None
    """When the change comes into force, in the future. It replaces a change that was scheduled before. Left out: at
    once."""


class EntitlementPatch(Body):
    """Changes of what is set (JSON Merge Patch, RFC 7396). A member that is left out stays as it is; null means: as the
    plan has it."""

    plan: PlanCode | None = None
    status: Literal["active", "trialing", "grace", "suspended"] | None = None
    policy: OveragePolicy | None = None
    meters: dict[Meter, Annotated[Units, Whole, Field(strict=True)] | None] | None = None
    """{"api_calls": 25000} changes one allowance; {"api_calls": null} restores the plan's."""
    overage_max: dict[Meter, Annotated[Units, Whole, Field(strict=True)] | None] | None = None
    rate: RateBody | None = None
    concurrent_max: Annotated[int, Whole, Field(strict=True, ge=1, le=CONCURRENT_MAX)] | None = None
    period_anchor: Annotated[Moment, AfterValidator(_anchor)] | None = None
    period: PeriodBody | None = None
    effective_at: Annotated[Moment, AfterValidator(_anchor)] | None = None
    """The same as for PUT."""

    def edit(self, before: Wanted | None, admin_suspended: bool) -> Wanted:
        """`admin_suspended`: an admin has suspended the organization. Raises Refusal."""
        content: dict[str, Any] = {} if before is None else set_of(before).model_dump(mode="json")
        if admin_suspended:
            content["status"] = "suspended"  # also where nothing was in force: only a status that is named ends it
        for name, value in self.model_dump(mode="json", exclude_unset=True, exclude={"effective_at"}).items():
            if name in ("meters", "overage_max") and value is not None:
                merged = (content.get(name) or {}) | value
                content[name] = {meter: units for meter, units in merged.items() if units is not None}
            else:
                content[name] = value
        given = {name: value for name, value in content.items() if value is not None}
        if "plan" not in given:
            raise invalid_field("body.plan", "is required: the organization has no entitlement in force")
        return EntitlementBody.model_validate_json(json.dumps(given)).wanted()


class ReasonBody(Body):
    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]+$")] | None = None
    """For the journal."""


IfMatch = Annotated[str | None, Header(description="The version that is to be changed; any other is refused with 412.")]


@router.put("/{org}", dependencies=[Allowed(Permission.ENTITLEMENTS_WRITE), Alone("override")])
async def set_entitlement(
    org: Org, body: ScheduledBody, ctx: Ctx, author: CallAuthor, response: Response, if_match: IfMatch = None
) -> EntitlementView:
    """Gives an organization a plan. To send the same content again changes nothing. What GET returns can be sent
    back."""
    now = ctx.clock()
    at, wanted = _future(body.effective_at, now), body.wanted()
    await changes.set_entitlement(ctx.db, org, _alone(ctx, lambda *_: wanted), _versions(if_match), now, author, at)
    await install(ctx, org)
    return _tagged(response, await read_entitlement(ctx, org))


@router.patch("/{org}", dependencies=[Allowed(Permission.ENTITLEMENTS_WRITE), Alone("override")])
async def change_entitlement(
    org: Org, body: EntitlementPatch, ctx: Ctx, author: CallAuthor, response: Response, if_match: IfMatch = None
) -> EntitlementView:
    """Changes only the members that the body names: {"meters": {"api_calls": 25000}}, {"rate": null}."""
    now = ctx.clock()
    at = _future(body.effective_at, now)
    await changes.set_entitlement(ctx.db, org, _alone(ctx, body.edit), _versions(if_match), now, author, at)
    await install(ctx, org)
    return _tagged(response, await read_entitlement(ctx, org))


@router.post("/{org}/suspend", dependencies=[Allowed(Permission.ENTITLEMENTS_WRITE), Alone("suspend")])
async def suspend_entitlement(
    org: Org,
    ctx: Ctx,
    author: CallAuthor,
    response: Response,
    body: ReasonBody | None = None,
    if_match: IfMatch = None,
) -> EntitlementView:
    """Suspends the organization: it is refused (402), whatever it pays, until it is resumed. Nothing else of it
    changes. An organization without an entitlement can be suspended, too: its first one is suspended then."""
    return await _set_admin_suspended(org, True, body, ctx, author, response, if_match)


@router.post("/{org}/resume", dependencies=[Allowed(Permission.ENTITLEMENTS_WRITE), Alone("resume")])
async def resume_entitlement(
    org: Org,
    ctx: Ctx,
    author: CallAuthor,
    response: Response,
    body: ReasonBody | None = None,
    if_match: IfMatch = None,
) -> EntitlementView:
    """Ends a suspension. The organization has the entitlement that it had before, or the one that it pays for by
    now."""
    return await _set_admin_suspended(org, False, body, ctx, author, response, if_match)


@router.delete(
    "/{org}/scheduled", status_code=204, dependencies=[Allowed(Permission.ENTITLEMENTS_WRITE), Alone("override")]
)
async def drop_scheduled_change(org: Org, ctx: Ctx, author: CallAuthor, if_match: IfMatch = None) -> None:
    """Cancels a scheduled change. One that a subscription has scheduled stays: change the subscription."""
    await changes.drop_scheduled(ctx.db, org, _versions(if_match), ctx.clock(), author)
    await install(ctx, org)


@router.get("/{org}", dependencies=[OfOrganization(Permission.ENTITLEMENTS_READ)])
async def get_entitlement(org: Org, ctx: Ctx, response: Response) -> EntitlementView:
    """Returns the plan, the remaining units and the reset. 404 for an organization that never had an entitlement and
    was never suspended."""
    return _tagged(response, await read_entitlement(ctx, org))


@router.delete("/{org}", status_code=204, dependencies=[Allowed(Permission.ENTITLEMENTS_WRITE), Alone("override")])
async def end_entitlement(org: Org, ctx: Ctx, author: CallAuthor, if_match: IfMatch = None) -> None:
    """Ends the entitlement at once. From now on the organization is refused (402). Its usage stays recorded."""
    await changes.end_entitlement(ctx.db, org, _versions(if_match), ctx.clock(), author)
    await install(ctx, org)


def _alone(ctx: Context, edit: changes.Edit) -> changes.Edit:
    """The edit refuses to begin or end a suspension where that needs a second person."""

    def alone(before: Wanted | None, admin_suspended: bool) -> Wanted:
        wanted = edit(before, admin_suspended)
        suspended = wanted.status is Status.SUSPENDED
        if suspended != admin_suspended:
            refuse_alone(ctx, "suspend" if suspended else "resume")
        return wanted

    return alone


async def _set_admin_suspended(
    org: str,
    admin_suspended: bool,
    body: ReasonBody | None,
    ctx: Context,
    author: Author,
    response: Response,
    if_match: str | None,
) -> EntitlementView:
    await changes.set_admin_suspended(
        ctx.db, org, admin_suspended, body.reason if body else None, _versions(if_match), ctx.clock(), author
    )
    await install(ctx, org)
    return _tagged(response, await read_entitlement(ctx, org))


def _future(at: datetime | None, now: float) -> float | None:
    if at is None:
        return None
    if at.timestamp() <= now:
        raise invalid_field("body.effective_at", "must be in the future")
    return float(int(at.timestamp()))


async def install(ctx: Context, org: str) -> None:
    """Publishes a change that is committed. Where that fails now, the publisher does it when it can."""
    try:
        await ctx.publisher.install(org)
    except (StoreUnavailable, LedgerUnavailable) as e:
        log.warning("a change waits to be published", org=org, reason=str(e))


async def read_entitlement(ctx: Context, org: str) -> EntitlementView:
    """Raises OrganizationUnknown, EntitlementMissing."""
    now = ctx.clock()
    async with ctx.db.connection() as connection:
        state = await stored_state.load_state(connection, org, now)
        ahead = await stored_state.scheduled(connection, org, now) if state and state.next_change_at is not None else []
    if state is None:
        raise OrganizationUnknown(org)
    if not state.entitled:
        raise EntitlementMissing(org)
    try:
        snapshot = await ctx.ledger.peek(org)
        if snapshot is None or snapshot.version == 0 or (state.terms and snapshot.period is None):
            await ctx.publisher.install(org)
            snapshot = await ctx.ledger.peek(org)
    except LedgerUnavailable:
        snapshot = None
    if snapshot is not None:
        snapshot = await everywhere(ctx.db, snapshot, state)
        return view(state, ahead, snapshot, "redis", snapshot.now_us / 1_000_000)
    counters = (await written_counters(ctx.db, [org], keys.shard_of(org, ctx.ledger.shards), now))[org]
    usage, grant_used = await with_other_regions(ctx.db, org, counters.usage, counters.grant_used, now)
    counters = replace(counters, usage=usage, grant_used=grant_used)
    as_of = counters.watermark.ms / 1000 or None
    return view(state, ahead, standing_from_postgres(state, counters, now), "postgres", as_of)


def _tagged(response: Response, entitlement: EntitlementView) -> EntitlementView:
    response.headers["ETag"] = f'"{entitlement.version}"'
    return entitlement


def _versions(if_match: str | None) -> Versions | None:
    """What is not a field value by RFC 9110 is refused with 400. An entity tag of somebody else just does not match."""
    if if_match is None:
        return None
    if if_match.strip() == "*":
        return Versions(None)
    if _ENTITY_TAGS.fullmatch(if_match) is None:
        raise Refusal(problems.BAD_REQUEST, 'If-Match must hold versions in quotes, as in "42", or *.')
    return Versions(frozenset(re.findall(_ENTITY_TAG, if_match)))
