"""Changes are made, one after the other, and what became of each is kept.

What the server refuses for one organization ends that organization's changes, and the others go on: applying again is
free. What ends everything is a server that does not answer, or fails.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Protocol

from control.progress import Tick, unwatched
from quotagate.admin import Refused
from quotagate.configuration import server
from quotagate.configuration.forms import Form
from quotagate.configuration.planning import REASON, Act, Call, Change, OfOrganization, Step, Verb
from quotagate.configuration.server import Held, Plan
from quotagate.failure import CommandFailed

PLANS_SECONDS = 600.0
"""A changed plan moves all organizations that have it."""
CONFLICTS = (409, 412)
WAITING = "waiting"


class ChangedMeanwhile(CommandFailed):
    """Somebody else changed the organization after it was read."""


class Outcome(Enum):
    """The value is the word of the JSON output."""

    APPLIED = "applied"
    WAITING = "waiting"
    """A second person must approve it."""
    CONFLICT = "conflict"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """It was sent, and no answer came."""
    NOT_TRIED = "not tried"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class Result:
    change: Change
    outcome: Outcome
    detail: str | None = None


class Api(server.Api, Protocol):
    def ask(
        self,
        method: str,
        path: str,
        content: Any = None,
        *,
        query: dict[str, Any] | None = None,
        version: int | None = None,
        timeout_seconds: float = 20.0,
    ) -> Any: ...


@dataclass(frozen=True, slots=True)
class Plans:
    """What changes of the catalogue, in one call."""

    changes: tuple[Change, ...]
    wanted: Mapping[str, Form]
    before: Mapping[str, Plan]
    prune: bool


def apply(
    api: Api, plans: Plans | None, organizations: Iterable[OfOrganization], tick: Tick = unwatched
) -> Iterator[Result]:
    """What became of each change, in their order. `tick` is called after each organization."""
    going_on = True
    if plans is not None and plans.changes:
        results = list(_apply_plans(api, plans))
        yield from results
        going_on = all(result.outcome is Outcome.APPLIED for result in results)
    for each in organizations:
        for result in _apply_organization(api, each) if going_on else _not_tried(each.changes):
            going_on = going_on and result.outcome is not Outcome.UNKNOWN
            yield result
        tick(1)


def _apply_plans(api: Api, plans: Plans) -> Iterator[Result]:
    content = {
        "plans": plans.wanted,
        "expected": {code: plan.version for code, plan in plans.before.items() if not plan.archived},
        "prune": plans.prune,
    }
    outcome, detail = _tried(lambda: api.ask("PUT", "/v1/plans", content, timeout_seconds=PLANS_SECONDS))
    for change in plans.changes:
        yield Result(change, outcome, detail)


def _apply_organization(api: Api, wanted: OfOrganization) -> Iterator[Result]:
    possible = [change for change in wanted.changes if change.verb is not Verb.IMPOSSIBLE]
    left: Iterator[Change] = iter(wanted.changes)
    outcome, detail = _tried(lambda: _check_unchanged(api, wanted)) if possible else (Outcome.APPLIED, None)
    if outcome is not Outcome.APPLIED:
        yield Result(next(left), outcome, detail)
        yield from _not_tried(left)
        return
    if wanted.after_restoring is not None:
        restoring = next(left)
        outcome, detail = _tried(partial(_take, api, restoring.step))
        yield Result(restoring, outcome, detail)
        held = _read(api, wanted.org) if outcome is Outcome.APPLIED else None
        if held is None:
            yield from _not_tried(left)
            return
        left = iter(wanted.after_restoring(held))
    for change in left:
        step = change.step
        if step is None:
            yield Result(change, Outcome.IMPOSSIBLE)
            continue
        outcome, detail = _tried(partial(_take, api, step))
        yield Result(change, outcome, detail)
        if outcome not in (Outcome.APPLIED, Outcome.WAITING):
            yield from _not_tried(left)


def _check_unchanged(api: Api, wanted: OfOrganization) -> None:
    if server.read_organization(api, wanted.org) != wanted.before:
        raise ChangedMeanwhile("it was changed since it was read: look at the difference again")


def _read(api: Api, org: str) -> Held | None:
    """None: it could not be read."""
    try:
        return server.read_organization(api, org)
    except CommandFailed:
        return None


def _tried(step: Callable[[], Any]) -> tuple[Outcome, str | None]:
    try:
        done = step()
    except Refused as e:
        if e.status >= 500:
            return Outcome.UNKNOWN, str(e)
        return (Outcome.CONFLICT if e.status in CONFLICTS else Outcome.REFUSED), str(e)
    except ChangedMeanwhile as e:
        return Outcome.CONFLICT, str(e)
    except CommandFailed as e:
        return Outcome.UNKNOWN, str(e)
    if done == WAITING:
        return Outcome.WAITING, "a second person must approve it: see /v1/approvals"
    return Outcome.APPLIED, None


def _take(api: Api, step: Step | None) -> str | None:
    match step:
        case Call(method, path, content, version, query):
            api.ask(method, path, content, version=version, query=None if query is None else dict(query))
            return None
        case Act(path, fields):
            shown = api.ask("POST", f"{path}/preview", {"fields": fields})
            content = {"fields": fields, "reason": REASON, "state": shown["state"]}
            return WAITING if api.ask("POST", path, content)["state"] == WAITING else None
        case None:
            return None


def _not_tried(changes: Iterable[Change]) -> Iterator[Result]:
    for change in changes:
        yield Result(change, Outcome.IMPOSSIBLE if change.verb is Verb.IMPOSSIBLE else Outcome.NOT_TRIED)
