"""The difference between what files say and what the server has, as changes that remove it. Pure."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from control.entitlements.plans import differences
from quotagate.admin import entitlement_path, path_of
from quotagate.configuration import forms
from quotagate.configuration.document import OrganizationItem
from quotagate.configuration.forms import Form
from quotagate.configuration.server import Held, Plan

REASON = "quotagate apply"


class Verb(Enum):
    """The value is the word of the JSON output."""

    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"
    IMPOSSIBLE = "impossible"
    """It differs, and no call of the API makes it the same."""


SIGNS = {Verb.ADD: "+", Verb.CHANGE: "~", Verb.REMOVE: "-", Verb.IMPOSSIBLE: "!"}


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    content: Any = None
    version: int | None = None
    """Of the entitlement that it changes: with another one it is refused."""
    query: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """An action, which goes by its own preview."""

    path: str
    fields: Mapping[str, Any]


Step = Call | Act


@dataclass(frozen=True, slots=True)
class Change:
    """One difference, and the step that removes it."""

    verb: Verb
    what: str
    """`organization acme: entitlement`"""
    about: tuple[str, ...]
    """`plan starter -> growth`"""
    step: Step | None


@dataclass(frozen=True, slots=True)
class OfOrganization:
    """What changes of one organization: it is read again first, and left alone if it is not as it was."""

    org: str
    before: Held | None
    changes: tuple[Change, ...]
    after_restoring: Callable[[Held], tuple[Change, ...]] | None = None
    """Of an organization that was deleted, and is restored by the first change: what it has is seen only then."""


def plan_changes(wanted: Mapping[str, Form], current: Mapping[str, Plan], prune: bool) -> Iterator[Change]:
    """The catalogue changes in one call, which is part of the first of them."""
    for code, form in sorted(wanted.items()):
        before = current.get(code)
        if before is None:
            yield Change(Verb.ADD, f"plan {code}", _lines({}, form), None)
        elif changed := _lines(before.form, form):
            yield Change(Verb.CHANGE, f"plan {code}", changed, None)
        if before is not None and before.archived:
            yield Change(Verb.CHANGE, f"plan {code}", ("is back in the catalogue",), None)
    for code, plan in current.items():
        if prune and code not in wanted and not plan.archived:
            about = ("is archived: it stays in force where it is",)
            yield Change(Verb.REMOVE, f"plan {code}", about, None)


def organization_changes(
    org: str, item: OrganizationItem, held: Held | None, *, prune: bool, now: datetime
) -> Iterator[Change]:
    wanted = forms.wanted_organization(item, held.form if held else None)
    current = held.form if held else {"entitlement": None, "grants": [], "caps": {}, "alerts": [], "keys": {}}
    yield from _itself(org, wanted, held)
    yield from _entitlement(org, wanted, current, held.version if held else 0)
    if "grants" in wanted:
        yield from _grants(org, wanted["grants"], held.grant_ids if held else (), prune, now)
    if "caps" in wanted:
        yield from _caps(org, wanted["caps"], current["caps"], prune)
    if wanted.get("alerts") not in (None, current["alerts"]):
        about = (f"{_words(current['alerts'])} -> {_words(wanted['alerts'])}",)
        content = {"percents": wanted["alerts"]}
        yield Change(Verb.CHANGE, f"organization {org}: alerts", about, Call("PUT", f"{path_of(org)}/alerts", content))
    if wanted.get("shadow") not in (None, current.get("shadow", False)):
        on = wanted["shadow"]
        step = Act(f"{path_of(org)}/actions/shadow", {"mode": "on" if on else "off"})
        about = ("off -> on" if on else "on -> off",)
        yield Change(Verb.CHANGE, f"organization {org}: shadow mode", about, step)
    if "keys" in wanted:
        yield from _keys(org, wanted["keys"], current["keys"], prune)


def removed(org: str) -> Change:
    about = ("is deleted: its tokens and keys are refused",)
    return Change(Verb.REMOVE, f"organization {org}", about, Call("DELETE", path_of(org)))


def _itself(org: str, wanted: Form, held: Held | None) -> Iterator[Change]:
    what, path = f"organization {org}", path_of(org)
    if held is None:
        name = wanted.get("name") or org
        yield Change(Verb.ADD, what, (f"name {name}",), Call("PUT", path, {"name": name}))
        return
    if held.deleted:
        yield Change(Verb.ADD, what, ("is restored",), Call("POST", f"{path}/restore"))
    name = wanted.get("name")
    if name not in (None, held.form["name"]):
        about = (f"name {held.form['name']} -> {name}",)
        yield Change(Verb.CHANGE, what, about, Call("PUT", path, {"name": name}))


def _entitlement(org: str, wanted: Form, current: Form, version: int) -> Iterator[Change]:
    what, path = f"organization {org}: entitlement", entitlement_path(org)
    before, expected = current["entitlement"], version or None
    if "entitlement" in wanted and (after := wanted["entitlement"]) != before:
        if after is None:
            yield Change(Verb.REMOVE, what, ("ends",), Call("DELETE", path, version=expected))
        else:
            verb = Verb.ADD if before is None else Verb.CHANGE
            # An empty object clears nothing: what is left out is as the plan has it.
            yield Change(verb, what, _lines(before or {}, after), Call("PUT", path, after, expected))
    suspended = wanted.get("suspended")
    if suspended not in (None, current.get("suspended", False)):
        about = ("is suspended" if suspended else "is not suspended any more",)
        call = Call("POST", f"{path}/{'suspend' if suspended else 'resume'}", {"reason": REASON})
        yield Change(Verb.CHANGE, f"organization {org}", about, call)


def _grants(
    org: str, wanted: list[Form], held: tuple[tuple[Form, str], ...], prune: bool, now: datetime
) -> Iterator[Change]:
    """A grant has no name: two are the same when all that is said of them is."""
    what, path = f"organization {org}: grant", f"{path_of(org)}/grants"
    asked = Counter(_words(each) for each in wanted)
    for form, grant_id in held:
        if asked[_words(form)] > 0:
            asked[_words(form)] -= 1
        elif prune:
            yield Change(Verb.REMOVE, what, (_words(form),), Call("DELETE", f"{path}/{grant_id}"))
    for form in wanted:
        if asked[_words(form)] > 0 and not forms.is_past(form["expires_at"], now):
            asked[_words(form)] -= 1
            yield Change(Verb.ADD, what, (_words(form),), Call("POST", path, form))


def _caps(org: str, wanted: Mapping[str, int], current: Mapping[str, int], prune: bool) -> Iterator[Change]:
    gone = [meter for meter in current if prune and meter not in wanted]
    for meter in [*wanted, *gone]:
        before, after = current.get(meter), wanted.get(meter)
        if before == after:
            continue
        verb = Verb.REMOVE if after is None else Verb.ADD if before is None else Verb.CHANGE
        call = Call("PUT", f"{path_of(org)}/caps/{meter}", {"units": after, "expected": before})
        about = (f"{_word(before)} -> {_word(after)}",)
        yield Change(verb, f"organization {org}: cap of {meter}", about, call)


def _keys(org: str, wanted: Mapping[str, Form], current: Mapping[str, Form], prune: bool) -> Iterator[Change]:
    for key, after in wanted.items():
        what, path = f"organization {org}: key {key}", f"{path_of(org)}/keys/{key}"
        before = current.get(key)
        if before is None:
            about = ("is not there, and its secret is in no file: make one by `quotagate keys create`",)
            yield Change(Verb.IMPOSSIBLE, what, about, None)
            continue
        after = {"environment": before["environment"]} | after
        if fixed := [name for name in ("environment", "user") if before.get(name) != after.get(name)]:
            yield Change(Verb.IMPOSSIBLE, what, (f"its {' and '.join(fixed)} are for its whole life",), None)
        elif changed := _lines(before, after):
            lists: Form = {"scopes": [], "networks": [], "quotas": [], "rate": None, "expires_at": None}
            content = lists | {name: value for name, value in after.items() if name not in ("environment", "user")}
            yield Change(Verb.CHANGE, what, changed, Call("PATCH", path, content))
    for key in current:
        if prune and key not in wanted:
            call = Call("DELETE", f"{path_of(org)}/keys/{key}", query={"reason": REASON})
            yield Change(Verb.REMOVE, f"organization {org}: key {key}", ("is revoked",), call)


def _lines(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(differences(before, after))


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_word(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return _word(value)


def _word(value: Any) -> str:
    return "none" if value is None else str(value)
