"""A decision, and what explains it, as the API shows them. Pure, apart from the pydantic models."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import groupby
from typing import Literal

from control.decisions import sentences
from control.decisions.admittance import TITLES, Check, Checked
from control.decisions.explained import Doubt, Explained, Source
from control.documents import View
from control.moments import moment
from control.sql.decisions import Event
from quota.evaluation import Outcome, Rule, Step
from quota.model import Exhausted, Level, MeterBalance
from quota.remedies import Change, ChangeKind
from quota.routes import Tunnel, TunnelUnit

LevelName = Literal["organization", "key", "user", "team"]


class BalanceView(View):
    limit: int
    remaining: int
    overage: int
    """Units that were sold beyond the limit."""


class PaidView(View):
    """What pays for the units of one meter."""

    allowance: int
    grants: dict[str, int]
    """Units by grant."""
    overage: int


class DecisionRuleView(View):
    rule: Rule | Check
    """One of the checks before the ledger is asked (of a request that was not sent), or a rule of the ledger."""
    title: str
    outcome: Outcome
    reached: bool
    """false: another rule had refused before. What this one says is then what it would have said."""
    known: bool
    """false: no event tells it afterwards, so the outcome is a guess."""
    level: LevelName
    """Whose limit it is."""
    meter: str | None
    window_seconds: int | None
    """Of a quota of the key's own: the window; 0: the organization's period."""
    cost: int | None
    before: BalanceView | None
    after: BalanceView | None
    """null: the rule refuses, or counts nothing."""
    paid: PaidView | None
    short: int
    """Units that nothing pays for."""
    wait_seconds: float | None
    """Of a rate limit that refuses: until the next request passes."""
    text: str


class ChangeView(View):
    kind: ChangeKind | Literal["principal", "other"]
    """`principal`: another token or key; `other`: what the text says."""
    rule: Rule | None
    meter: str | None
    by: int | None
    """Units more, or concurrent requests."""
    to: int | None
    """What the limit would be."""
    until: datetime | None
    """Of `wait`: the moment at which the request passes."""
    text: str


class CorrectionView(View):
    at: datetime
    units: dict[str, int]
    """Units by meter that were added, or (negative) given back."""


class TunnelView(View):
    """What an upgraded connection costs beyond its opening."""

    per: TunnelUnit
    """A message of a WebSocket client, or each begun mebibyte of both directions."""
    charges: dict[str, int]
    """What one costs: units by meter."""


class DecisionView(View):
    source: Source
    request_id: str | None
    """null: a request that was not sent."""
    correlation: str | None
    """The client's own X-Request-Id, which its answer has in place of ours."""
    at: datetime
    org: str | None
    """null: the request was refused before an organization was known."""
    key: str | None
    """The id of its API key."""
    user: str | None
    route: str | None
    method: str | None
    gateway: str | None
    """The host that decided."""
    outcome: Literal["admitted", "refused", "would_be_refused"]
    """`would_be_refused`: shadow mode let the request go on."""
    status: int | None
    """Of the answer, where the gateway itself answered."""
    verdict: str
    """As in logs and metrics."""
    text: str
    """What the client was told, or would be."""
    charges: dict[str, int]
    tunnel: TunnelView | None
    """Of a request that is not sent: what its connection costs after the upgrade; null: it asks for no upgrade, its
    route offers none, or nothing more is charged."""
    version: int | None
    """Of the organization's entitlement, by which it was decided."""
    plan: str | None
    period_start: datetime | None
    period_end: datetime | None
    rules: list[DecisionRuleView]
    """In the order in which they are looked at; empty where the ledger was not asked."""
    changes: list[ChangeView]
    """The smallest changes of each kind that would have lifted a rule that refuses."""
    remedy: list[ChangeView]
    """The smallest changes that together would have admitted the request."""
    corrections: list[CorrectionView]
    """Of a charged request: what was given back or added when its end was known."""
    doubts: list[Doubt]
    """What the explanation does not know."""


class DecisionsView(View):
    decisions: list[DecisionView]
    """The newest first. Several, where a client sent its own id more than once."""


_RULES_NOT_TOLD = frozenset({Rule.RATE, Rule.OWN_RATE, Rule.CONCURRENCY})
"""No event tells how full their buckets were."""


def decision_view(explained: Explained) -> DecisionView:
    refusal, evaluation, period = explained.refusal, explained.evaluation, explained.period
    refused_by = None if evaluation is None else evaluation.refused_by
    verdict = _verdict(explained)
    steps = () if evaluation is None else evaluation.steps
    return DecisionView(
        source=explained.source,
        request_id=explained.events[0].request_id
        if refusal is None and explained.events
        else None
        if refusal is None
        else refusal.request_id,
        correlation=None if refusal is None else refusal.correlation,
        at=explained.at,
        org=explained.org,
        key=explained.key_id,
        user=explained.user_id,
        route=explained.route if refusal is None else refusal.route,
        method=explained.method if refusal is None else refusal.method,
        gateway=None if refusal is None else refusal.gateway,
        outcome=_outcome(explained),
        status=None if refusal is None else refusal.status,
        verdict=verdict,
        text=_text(explained, refused_by),
        charges=dict(explained.charges),
        tunnel=None if explained.tunnel is None else tunnel_view(explained.tunnel),
        version=_version(explained),
        plan=None if explained.published is None else explained.published.terms.get("plan"),
        period_start=None if period is None else moment(period.start),
        period_end=None if period is None else moment(period.end),
        rules=[*map(_checked, _reached(explained.checks)), *_rules(explained, steps)],
        changes=[*_others(explained), *map(change_view, explained.changes)],
        remedy=[*_others(explained), *map(change_view, explained.remedy or ())],
        corrections=list(_corrections(explained.events)),
        doubts=sorted(explained.doubts),
    )


def tunnel_view(tunnel: Tunnel) -> TunnelView:
    return TunnelView(per=tunnel.per, charges=dict(tunnel.charges))


def _outcome(explained: Explained) -> Literal["admitted", "refused", "would_be_refused"]:
    if explained.refusal is not None:
        return "would_be_refused" if explained.refusal.shadow else "admitted" if explained.admitted else "refused"
    if explained.admitted:
        return "admitted"
    return "would_be_refused" if explained.shadow else "refused"


def change_view(change: Change) -> ChangeView:
    waits = change.kind is ChangeKind.WAIT
    sized = change.by > 0 and not waits
    return ChangeView(
        kind=change.kind,
        rule=change.about.rule,
        meter=change.about.meter,
        by=change.by if sized else None,
        to=change.to if sized else None,
        until=_at(change.to) if waits else None,
        text=sentences.of_change(change),
    )


def _at(us: int) -> datetime:
    return moment(us // 1_000_000) + timedelta(microseconds=us % 1_000_000)


def _rules(explained: Explained, steps: Iterable[Step]) -> Iterable[DecisionRuleView]:
    reached, refused_by = explained.refused_check is None, None
    for step in steps:
        hypothetical = explained.source is Source.HYPOTHETICAL
        told = hypothetical or step.rule not in _RULES_NOT_TOLD or step.outcome is not Outcome.PASSED
        yield _rule(step, reached=reached, known=told or (reached and explained.admitted and refused_by is None))
        if step.outcome is Outcome.REFUSED:
            reached, refused_by = False, step


def _rule(step: Step, *, reached: bool, known: bool) -> DecisionRuleView:
    paid = step.paid
    burnt = {} if paid is None else dict(paid.burnt)
    return DecisionRuleView(
        rule=step.rule,
        title=sentences.RULES[step.rule] + (f": {step.meter}" if step.meter else ""),
        outcome=step.outcome,
        reached=reached,
        known=known,
        level=_level(step.level),
        meter=step.meter,
        window_seconds=step.about.window_seconds,
        cost=step.cost if step.before is not None else None,
        before=_balance(step.before),
        after=_balance(step.after),
        paid=None
        if paid is None
        else PaidView(allowance=paid.units - paid.overage - sum(burnt.values()), grants=burnt, overage=paid.overage),
        short=step.short,
        wait_seconds=step.wait_us / 1_000_000 if step.wait_us else None,
        text=sentences.of_step(step),
    )


def _reached(checks: Iterable[Checked]) -> Iterable[tuple[Checked, bool]]:
    reached = True
    for each in checks:
        yield each, reached
        reached = reached and each.outcome is not Outcome.REFUSED


def _checked(look: tuple[Checked, bool]) -> DecisionRuleView:
    check, reached = look
    return DecisionRuleView(
        rule=check.check,
        title=TITLES[check.check],
        outcome=check.outcome,
        reached=reached,
        known=check.known,
        level="key" if check.check in (Check.ADDRESS, Check.SCOPE) else "organization",
        meter=None,
        window_seconds=None,
        cost=None,
        before=None,
        after=None,
        paid=None,
        short=0,
        wait_seconds=None,
        text=check.text,
    )


def _level(level: Level) -> LevelName:
    names: dict[Level, LevelName] = {
        Level.ORGANIZATION: "organization",
        Level.KEY: "key",
        Level.USER: "user",
        Level.TEAM: "team",
    }
    return names[level]


def _balance(balance: MeterBalance | None) -> BalanceView | None:
    if balance is None:
        return None
    return BalanceView(limit=balance.limit, remaining=balance.remaining, overage=balance.overage)


def _verdict(explained: Explained) -> str:
    if explained.refusal is not None:
        return explained.refusal.verdict
    if (check := explained.refused_check) is not None:
        return check.verdict
    evaluation = explained.evaluation
    refused_by = None if evaluation is None else evaluation.refused_by
    if explained.source is Source.USAGE_EVENT or evaluation is None or refused_by is None:
        return "admitted"
    if isinstance(evaluation.decision, Exhausted) and evaluation.decision.over_limit:
        return "cost_above_limit"
    return _VERDICTS[refused_by.rule] if refused_by.short or refused_by.rule is not Rule.METER else "not_in_plan"


_VERDICTS = {
    Rule.PUBLISHED: "pending",
    Rule.VERSION: "pending",
    Rule.STATUS: "not_entitled",
    Rule.PERIOD: "pending",
    Rule.METER: "exhausted",
    Rule.OWN_QUOTA: "exhausted",
    Rule.RATE: "rate_limited",
    Rule.OWN_RATE: "rate_limited",
    Rule.CONCURRENCY: "concurrency_limited",
}


def _text(explained: Explained, refused_by: Step | None) -> str:
    if explained.refusal is not None:
        return explained.refusal.detail
    if (check := explained.refused_check) is not None:
        return check.text
    if explained.source is Source.USAGE_EVENT:
        return "The request was admitted and charged."
    if explained.evaluation is None:
        return "The request would be forwarded: its route is exempt."
    return "The request would be admitted." if refused_by is None else sentences.of_step(refused_by)


def _version(explained: Explained) -> int | None:
    refusal = explained.refusal
    if refusal is not None and refusal.version is not None:
        return refusal.version
    return None if explained.terms is None else explained.terms.version


def _others(explained: Explained) -> list[ChangeView]:
    """Where no rule of the ledger refused."""
    if explained.checks:
        refused = [each for each in explained.checks if each.outcome is Outcome.REFUSED]
        return [_other("principal" if each.verdict.startswith("token_") else "other", each.remedy) for each in refused]
    verdict, reason = "", None
    if explained.refusal is not None and explained.evaluation is None:
        verdict = explained.refusal.verdict
        reason = verdict.removeprefix("token_") if verdict.startswith("token_") else None
    if reason is not None:
        return [_other("principal", sentences.of_principal(reason))]
    text = sentences.OTHERS.get(verdict)
    return [] if text is None else [_other("other", text)]


def _other(kind: Literal["principal", "other"], text: str) -> ChangeView:
    return ChangeView(kind=kind, rule=None, meter=None, by=None, to=None, until=None, text=text)


def _corrections(events: Iterable[Event]) -> Iterable[CorrectionView]:
    settled = (event for event in events if event.kind == "settle")
    for at, of_event in groupby(settled, key=lambda event: event.occurred_at):
        yield CorrectionView(at=at, units={event.meter: event.units for event in of_event})
