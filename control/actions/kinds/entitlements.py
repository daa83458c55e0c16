"""Plan override, suspension and its end."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from control import sql
from control.access.permissions import Permission
from control.access.publishing import enforce
from control.actions.action import Action, Call, Choices, Done, Look, Reversal
from control.actions.failures import ChangedSince, NotPossible
from control.actions.parts import ActionParts
from control.db import Connection, Transactions
from control.documents import Body, Whole
from control.entitlements import changes
from control.entitlements.changes import Wanted, wanted_of
from control.entitlements.derive import State
from control.entitlements.plans import Meter, PlanCode, Units
from control.entitlements.rates import rate_content
from control.entitlements.set_terms import SetTerms
from control.entitlements.stored_state import known_meters, load_state
from control.organizations.store import OrganizationUnknown
from quota.model import CONCURRENT_MAX, OveragePolicy, RateLimit, Status
from quota.periods import Rule, Unit


class OverrideFields(Body):
    """What is left out stays as it is."""

    plan: PlanCode | None = None
    """Another plan, for an organization that pays for none. Who pays switches the subscription."""
    meter: Meter | None = None
    """The meter that the allowance and the overage are of."""
    allowance: Annotated[Units, Whole] | None = None
    """Units of a period in place of the plan's."""
    overage_max: Annotated[Units, Whole] | None = None
    """Units of a period that may be sold beyond the allowance."""
    policy: OveragePolicy | None = None
    concurrent_max: Annotated[int, Whole, Field(ge=1, le=CONCURRENT_MAX)] | None = None
    """Requests that may be under way at once."""
    restore: Literal["meter", "all"] | None = None
    """Drops overrides, so that the plan's own terms hold: those of the meter, or all of them."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_dump(exclude_none=True, exclude={"meter"}):
            raise ValueError("says nothing that is to change")
        needs_meter = self.allowance is not None or self.overage_max is not None or self.restore == "meter"
        if needs_meter != (self.meter is not None):
            raise ValueError("meter goes with allowance, overage_max or restore, and they with it")
        return self

    def edit(self, before: Wanted) -> Wanted:
        allowances, overage_max = dict(before.allowances), dict(before.overage_max)
        policy, rate, concurrent_max = before.policy, before.rate, before.concurrent_max
        if self.restore == "all":
            allowances, overage_max, policy, rate, concurrent_max = {}, {}, None, None, None
        if self.meter is not None:
            if self.restore == "meter":
                allowances.pop(self.meter, None)
                overage_max.pop(self.meter, None)
            if self.allowance is not None:
                allowances[self.meter] = self.allowance
            if self.overage_max is not None:
                overage_max[self.meter] = self.overage_max
        return replace(
            before,
            plan=self.plan or before.plan,
            allowances=allowances,
            overage_max=overage_max,
            policy=self.policy or policy,
            rate=rate,
            concurrent_max=self.concurrent_max or concurrent_max,
        )


class Override(Action[OverrideFields]):
    name = "override"
    title = "Override the plan"
    about = "Other limits than the plan's, or another plan for who pays for none. In force at once."
    permission = Permission.ENTITLEMENTS_WRITE
    fields = OverrideFields

    async def change(self, parts: ActionParts, db: Transactions, call: Call[OverrideFields], look: Look) -> Done:
        async with db.connection() as connection:
            before = await _state(connection, call.org, call.now)
            if before.terms is None and call.fields.plan is None:
                raise NotPossible("The organization has no entitlement: name a plan.")

            def edit(wanted: Wanted | None, suspended: bool) -> Wanted:
                status = Status.SUSPENDED if suspended else Status.ACTIVE
                return call.fields.edit(wanted or Wanted(plan=call.fields.plan or "", status=status))

            if not await changes.set_entitlement(db, call.org, edit, None, call.now, call.author):
                raise NotPossible("The organization has exactly this already.")
            after = await _state(connection, call.org, call.now)
            content = {"before": _set(before), "after": _set(after)}
            why_not = await self._why_not(connection, before, after)
            if why_not is not None:
                return Done(undo_says=why_not, content=content)
            assert before.terms is not None  # noqa: S101  _why_not has a reason for that
            wanted = _content(wanted_of(before.terms))
            return Done(
                undo_says="Undo sets again what is set now, as long as nobody has set anything else.",
                undo={"wanted": wanted, "left": _set(after)},
                content=content,
            )

    async def _why_not(self, connection: Connection, before: State, after: State) -> str | None:
        """Why this could not be undone exactly."""
        if before.terms is None:
            return "It cannot be undone: there is no entitlement now that could be set again. It can be ended."
        plan, terms = before.terms.plan, after.terms
        if terms is not None and (terms.plan.code, terms.plan.version) == (plan.code, plan.version):
            return None
        newest = await sql.plans.newest_of(connection, code=plan.code)
        if newest is None or newest.archived_at or newest.version != plan.version:
            return f"It cannot be undone: version {plan.version} of the plan {plan.code} is not given any more."
        return None

    async def reverse(self, parts: ActionParts, db: Transactions, undo: Mapping[str, Any], call: Reversal) -> None:
        async with db.connection() as connection:
            if _set(await _state(connection, call.org, call.now)) != undo["left"]:
                raise ChangedSince("Somebody has set something else since then.")
        wanted = _wanted(undo["wanted"])
        await changes.set_entitlement(db, call.org, lambda *_: wanted, None, call.now, call.author)

    async def choices(self, parts: ActionParts, org: str) -> Choices:
        async with parts.db.connection() as connection:
            plans = await sql.plans.newest(connection)
        meters = await known_meters(parts.db)
        return {
            "plan": [(plan.code, plan.name) for plan in plans],
            "meter": [(meter, meter) for meter in meters],
        }


class SuspensionFields(Body):
    """Nothing is to be chosen."""


class _Suspension(Action[SuspensionFields]):
    permission = Permission.ENTITLEMENTS_WRITE
    fields = SuspensionFields
    suspended: bool

    async def change(self, parts: ActionParts, db: Transactions, call: Call[SuspensionFields], look: Look) -> Done:
        async with db.connection() as connection:
            before = await _state(connection, call.org, call.now)
        if not await changes.set_admin_suspended(
            db, call.org, self.suspended, call.reason, None, call.now, call.author
        ):
            raise NotPossible("The organization is suspended already." if self.suspended else "It is not suspended.")
        paid = before.terms is not None and before.terms.subscription is not None
        warnings = list[str]()
        if self.suspended and paid:
            warnings.append("Its subscription goes on, and is billed.")
        if self.suspended and before.shadow:
            warnings.append("It is in shadow mode: its requests pass all the same, until that is ended.")
        if not before.entitled:
            says = "Resume ends the suspension; what it had before was no entitlement, which it does not have again."
            return Done(undo_says=says, warnings=tuple(warnings))
        opposite = "ends the suspension" if self.suspended else "suspends it again"
        return Done(undo_says=f"Undo {opposite}.", undo={"suspended": self.suspended}, warnings=tuple(warnings))

    async def publish(self, parts: ActionParts, org: str) -> None:
        await enforce(parts.publisher, org)

    async def reverse(self, parts: ActionParts, db: Transactions, undo: Mapping[str, Any], call: Reversal) -> None:
        reason = call.reason
        if not await changes.set_admin_suspended(
            db, call.org, not undo["suspended"], reason, None, call.now, call.author
        ):
            raise ChangedSince("It is so already: somebody else was faster.")


class Suspend(_Suspension):
    name = "suspend"
    title = "Suspend"
    about = "Every request of the organization is refused (402), whatever it pays, until it is resumed."
    suspended = True


class Resume(_Suspension):
    name = "resume"
    title = "Resume"
    about = "Ends a suspension: the organization has the entitlement that it pays for, or was given."
    suspended = False


async def _state(connection: Connection, org: str, now: float) -> State:
    state = await load_state(connection, org, now)
    if state is None:
        raise OrganizationUnknown(org)
    return state


def _set(state: State) -> dict[str, Any] | None:
    return None if state.terms is None else SetTerms.of(state.terms).journaled()


def _content(wanted: Wanted) -> dict[str, Any]:
    """As JSON has it, to be set again."""
    period = wanted.period
    return {
        "plan": wanted.plan,
        "status": wanted.status.word,
        "policy": wanted.policy,
        "allowances": dict(wanted.allowances),
        "overage_max": dict(wanted.overage_max),
        "rate": rate_content(wanted.rate),
        "concurrent_max": wanted.concurrent_max,
        "period": period and {"every": period.every, "unit": period.unit, "bounds": list(period.bounds)},
        "period_anchor": wanted.period_anchor,
    }


def _wanted(content: Mapping[str, Any]) -> Wanted:
    policy, rate, period = content["policy"], content["rate"], content["period"]
    return Wanted(
        plan=content["plan"],
        status=Status[content["status"].upper()],
        policy=OveragePolicy(policy) if policy else None,
        allowances=content["allowances"],
        overage_max=content["overage_max"],
        rate=RateLimit(rate["requests"], float(rate["seconds"]), rate["burst"]) if rate else None,
        concurrent_max=content["concurrent_max"],
        period=Rule(period["every"], Unit(period["unit"]), tuple(period["bounds"])) if period else None,
        period_anchor=content["period_anchor"],
    )
