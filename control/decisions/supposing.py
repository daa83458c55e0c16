"""What would be decided of a request now, if it came. Nothing is charged."""

from dataclasses import dataclass, replace
from typing import Final

from common.clock import Clock
from control.db import Database
from control.decisions import gateway_routes, matching
from control.decisions.admittance import Looked, Place, Principal, Supposed, look
from control.decisions.books import Moment
from control.decisions.explained import Doubt, Explained, KeyUnknown, Source, explained_case
from control.decisions.matching import Found, Unreadable, Unrouted
from control.decisions.published_key import PublishedKey, published_key
from quota.access import Mark, MarkKind
from quota.evaluation import Books, Request
from quota.ledger import Ledger
from quota.model import Admitted, OrganizationSnapshot
from quota.remedies import Case
from quota.routes import Route, Routes, Told
from quota.terms import OwnLimits, Terms

_NO_ROUTES: Final = Routes(())


class RouteUnknown(Exception):
    """No gateway tells of such a route. The message says what is told."""


@dataclass(frozen=True, slots=True)
class _Placed:
    place: Place
    shadow: bool
    doubts: frozenset[Doubt]


async def suppose(db: Database, ledger: Ledger, clock: Clock, supposed: Supposed) -> Explained:
    """Raises StoreUnavailable, LedgerUnavailable, KeyUnknown, RouteUnknown."""
    key = None
    if supposed.key is not None:
        async with db.connection() as connection:
            key = await published_key(connection, ledger, supposed.org, supposed.key)
        if key is None:
            raise KeyUnknown
    placed = _placed(await gateway_routes.read_told(ledger.redis, clock()), supposed, clock())
    snapshot = await ledger.peek(supposed.org)
    case = await _case(ledger, clock, supposed, key, snapshot)
    now = case.request.now_us / 1_000_000
    user = supposed.user if key is None else key.record.user
    principal = Principal(mark=await _mark(ledger, supposed.org, user, now, by_key=key is not None))
    if key is not None:
        principal = replace(principal, record=key.record, imported=key.imported)
    looked = look(supposed, placed.place, principal, now)
    case = case._replace(request=replace(case.request, charges=looked.charges))
    # An organization's own mode is about its plan: who may not ask is refused all the same.
    if snapshot is not None and snapshot.shadow and not looked.refused:
        placed = replace(placed, shadow=True)
    return _explained(supposed, placed, looked, case, user)


async def _case(
    ledger: Ledger,
    clock: Clock,
    supposed: Supposed,
    key: PublishedKey | None,
    snapshot: OrganizationSnapshot | None,
) -> Case:
    under_way = 0 if snapshot is None or snapshot.concurrent_max is None else await ledger.under_way(supposed.org)
    own = () if key is None else (OwnLimits.of(key.record),)
    now_us = int(clock() * 1_000_000) if snapshot is None else snapshot.now_us
    terms = None if snapshot is None else Terms.of_snapshot(snapshot)
    books = Books() if snapshot is None else Books.of_snapshot(snapshot, under_way)
    return Case(terms, books, Request(now_us, supposed.charges or {}, None, own))


async def _mark(ledger: Ledger, org: str, user: str | None, now: float, *, by_key: bool) -> Mark | None:
    """A mark with a time is about tokens: the keys that it means are revoked themselves."""
    marks = [Mark(MarkKind.ORGANIZATION), *([] if user is None else [Mark(MarkKind.USER, user)])]
    return (await ledger.look(org, None, marks)).refused_by(float("inf") if by_key else now)


def _placed(told: list[Told], supposed: Supposed, now: float) -> _Placed:
    """Under the routes of the gateways that started last. Raises RouteUnknown."""
    found = {each.digest: _found(each.routes, supposed) for each in told}
    if supposed.names_route and all(each.route is None for each in found.values()):
        what = f"No gateway has a route named {supposed.route!r}." if told else "No gateway has told its routes."
        raise RouteUnknown(what)
    first = next((each for each in told if found[each.digest].route is not None), told[0] if told else None)
    if first is None:
        return _Placed(Place(), shadow=False, doubts=frozenset())
    (route, path), routes = found[first.digest], first.routes
    shadow = supposed.org in routes.shadow_organizations or (isinstance(route, Route) and route.shadow)
    others = [(found[each.digest].route, each.routes.environments) for each in told]
    doubts = set[Doubt]()
    if any(other != (route, routes.environments) for other in others):
        doubts.add(Doubt.ROUTES_DIFFER)
    if not first.is_current(now):
        doubts.add(Doubt.ROUTES_OF_BEFORE)
    return _Placed(Place(route, routes.environments, path), shadow, frozenset(doubts))


def _found(routes: Routes, supposed: Supposed) -> Found:
    if supposed.route is not None:
        return Found(gateway_routes.named(routes, supposed.route))
    if supposed.path is not None:
        return matching.find(routes, supposed.method or "GET", supposed.host, supposed.path)
    return Found()


def _explained(supposed: Supposed, placed: _Placed, looked: Looked, case: Case, user: str | None) -> Explained:
    at, route = Moment(case.request.now_us).millisecond, placed.place.route
    plain = Explained(
        Source.HYPOTHETICAL,
        at,
        supposed.org,
        False,
        looked.charges,
        key_id=supposed.key,
        user_id=user,
        checks=looked.checks,
        route=route.name if isinstance(route, Route) else None,
        method=supposed.method,
        shadow=placed.shadow,
        doubts=placed.doubts,
        tunnel=looked.tunnel,
    )
    if looked.exempt:
        return replace(plain, admitted=True, shadow=False)
    if isinstance(route, Unrouted | Unreadable):
        return replace(plain, shadow=False)
    explained = explained_case(plain, case, None, set(placed.doubts))
    admitted = isinstance(case.evaluate().decision, Admitted) and not looked.refused
    periods = () if case.terms is None else case.terms.periods
    period = next((each for each in periods if case.request.now_us // 1_000_000 in each), None)
    # What the request itself says wrong is refused in shadow mode, too.
    shadow = placed.shadow and not any(each.verdict == "bad_request" for each in looked.refused)
    return replace(explained, admitted=admitted, shadow=shadow, period=period)
