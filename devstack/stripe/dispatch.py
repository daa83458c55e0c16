"""Which function answers which call; lists, and answers with what they refer to."""

import re
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from operator import ge, gt, le, lt
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
COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
NAMESPACES = frozenset({"billing", "billing_portal", "checkout"})


def route(method: str, path: str, params: str | None = None) -> Callable[[Handler], Handler]:
    """Registers `handler(account, params, **the path's names)`."""
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
    steps = path.split("/")[2:]
    # What is below a resource (an invoice's lines, the end of a schedule) needs the resource's permission.
    resource = "/".join(steps[:2]) if steps[0] in NAMESPACES else steps[0]
    resource = {"subscription_items": "subscriptions"}.get(resource, resource)
    permission = f"{resource}:{'read' if method == 'GET' else 'write'}"

    def register(handler: Handler) -> Handler:
        ROUTES.append(Operation(method, pattern, params, handler, permission))
        return handler

    return register


def matching(method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """The operation of a call, and the values of the names in its path. Raises RequestRefused."""
    for operation in ROUTES:
        if operation.method == method and (match := operation.pattern.fullmatch(path)):
            return operation, match.groupdict()
    raise RequestRefused(f"Unrecognized request URL ({method}: {path}).", status=404)


def listing(rows: Iterable[Object], params: Object, url: str) -> Object:
    """A page of `rows`, which are sorted from the newest to the oldest. Raises RequestRefused."""
    limit, created = params.get("limit", 10), params.get("created")
    matches = [row for row in rows if created is None or _created_within(row["created"], created)]
    ids = [row["id"] for row in matches]
    if after := params.get("starting_after"):
        start = _position(ids, after) + 1
        page, more = matches[start : start + limit], len(matches) > start + limit
    elif before := params.get("ending_before"):
        end = _position(ids, before)
        page, more = matches[max(0, end - limit) : end], end > limit
    else:
        page, more = matches[:limit], len(matches) > limit
    return {"object": "list", "data": page, "has_more": more, "url": url}


def _created_within(created: int, bounds: Object | int) -> bool:
    """`bounds`: by their names in Stripe's API, or the very moment."""
    if isinstance(bounds, dict):
        return all(COMPARISONS[name](created, bound) for name, bound in bounds.items())
    return created == bounds


def expanded(account: Account, answer: Object, paths: Iterable[str]) -> Object:
    """A copy of the answer in which ids are replaced by their objects. Raises RequestRefused."""
    copy = deepcopy(answer)
    for path in paths:
        _expand(account, copy, path.split("."), path)
    _cut(copy, account.settings.get("items_shown", ITEMS_SHOWN))
    return copy


def _cut(at: Any, shown: int) -> None:
    """A subscription shows only the first of its items."""
    if isinstance(at, list):
        for each in at:
            _cut(each, shown)
    elif isinstance(at, dict):
        items = at.get("items")
        if at.get("object") == "subscription" and isinstance(items, dict) and len(items["data"]) > shown:
            items["data"], items["has_more"] = items["data"][:shown], True
        for each in at.values():
            _cut(each, shown)


def _position(ids: list[str], object_id: str) -> int:
    if object_id not in ids:
        raise RequestRefused(f"No such object: '{object_id}'", code="resource_missing")
    return ids.index(object_id)


def _expand(account: Account, at: Any, steps: list[str], path: str) -> None:
    step, *steps_below = steps
    if isinstance(at, list):
        for each in at:
            _expand(account, each, steps, path)
        return
    if not isinstance(at, dict) or step not in at:
        if at is not None:
            raise RequestRefused(f"This property cannot be expanded ({path}).", param="expand")
        return
    if isinstance(at[step], list):
        at[step] = [_object_of(account, each) for each in at[step]]
    else:
        at[step] = _object_of(account, at[step])
    if steps_below and at[step] is not None:
        _expand(account, at[step], steps_below, path)


def _object_of(account: Account, reference: Any) -> Any:
    """The object that an id is of; anything else as it is."""
    obj = account.by_id(reference) if isinstance(reference, str) else None
    return reference if obj is None else deepcopy(obj)
