"""Which function answers which call; lists, and answers with what they refer to."""

import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from devstack.stripe.account import Account, Object, RequestRefused

Handler = Callable[..., Object]


@dataclass(frozen=True)
class Operation:
    method: str
    pattern: re.Pattern[str]
    params: str | None
    """The name of its parameters' class in stripe.params; None: it takes none."""
    handler: Handler
    permission: str
    """What a restricted key needs: customers:write, billing/meters:read."""


ROUTES: list[Operation] = []
ITEMS_SHOWN = 20
NAMESPACES = frozenset({"billing", "billing_portal", "checkout"})


def route(method: str, path: str, params: str | None = None) -> Callable[[Handler], Handler]:
    """Registers `handler(account, params, **the path's names)`."""
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
    first, *rest = path.split("/")[2:]
    # What is below a resource (an invoice's lines, the end of a schedule) goes by the resource's permission.
    resource = f"{first}/{rest[0]}" if first in NAMESPACES else first
    resource = {"subscription_items": "subscriptions"}.get(resource, resource)
    permission = f"{resource}:{'read' if method == 'GET' else 'write'}"

    def register(handler: Handler) -> Handler:
        ROUTES.append(Operation(method, pattern, params, handler, permission))
        return handler

    return register


def matching(method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """Raises RequestRefused."""
    for each in ROUTES:
        if each.method == method and (match := each.pattern.fullmatch(path)):
            return each, match.groupdict()
    raise RequestRefused(f"Unrecognized request URL ({method}: {path}).", status=404)


def listing(rows: Iterable[Object], params: Object, url: str) -> Object:
    """A page of `rows`, the newest first."""
    found, limit = list(rows), params.get("limit", 10)
    created = params.get("created")
    if isinstance(created, dict):
        tests: dict[str, Callable[[int, int], bool]] = {
            "gt": lambda a, b: a > b,
            "gte": lambda a, b: a >= b,
            "lt": lambda a, b: a < b,
            "lte": lambda a, b: a <= b,
        }
        found = [each for each in found if all(tests[name](each["created"], at) for name, at in created.items())]
    elif created is not None:
        found = [each for each in found if each["created"] == created]
    ids = [each["id"] for each in found]
    if after := params.get("starting_after"):
        start = _place(ids, after) + 1
        page, more = found[start : start + limit], len(found) > start + limit
    elif before := params.get("ending_before"):
        end = _place(ids, before)
        page, more = found[max(0, end - limit) : end], end > limit
    else:
        page, more = found[:limit], len(found) > limit
    return {"object": "list", "data": page, "has_more": more, "url": url}


def expanded(account: Account, answer: Object, paths: Iterable[str]) -> Object:
    """A copy of the answer where ids are replaced by what they are ids of. Raises RequestRefused."""
    copy = deepcopy(answer)
    for path in paths:
        _expand(account, copy, path.split("."), path)
    _cut(copy, account.settings.get("items_shown", ITEMS_SHOWN))
    return copy


def _cut(at: Any, shown: int) -> None:
    """A subscription shows the first of its items only."""
    if isinstance(at, list):
        for each in at:
            _cut(each, shown)
    elif isinstance(at, dict):
        items = at.get("items")
        if at.get("object") == "subscription" and isinstance(items, dict) and len(items["data"]) > shown:
            items["data"], items["has_more"] = items["data"][:shown], True
        for each in at.values():
            _cut(each, shown)


def _place(ids: list[str], wanted: str) -> int:
    if wanted not in ids:
        raise RequestRefused(f"No such object: '{wanted}'", code="resource_missing")
    return ids.index(wanted)


def _expand(account: Account, at: Any, steps: list[str], path: str) -> None:
    step, *rest = steps
    if isinstance(at, list):
        for each in at:
            _expand(account, each, steps, path)
        return
    if not isinstance(at, dict) or step not in at:
        if at is not None:
            raise RequestRefused(f"This property cannot be expanded ({path}).", param="expand")
        return
    if isinstance(at[step], str) and (found := account.by_id(at[step])) is not None:
        at[step] = deepcopy(found)
    if rest and at[step] is not None:
        _expand(account, at[step], rest, path)
