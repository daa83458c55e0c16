"""What a gateway looks at before it asks the ledger: the route, who asks, and what the request may say. Pure.

`gateway/decision/decisions.py` decides; this says what it would.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from math import inf
from typing import Final

from control.decisions import sentences
from control.decisions.matching import Unreadable, Unrouted
from identity.claims import Claims
from identity.refusals import Reason
from identity.requirements import Requirement
from identity.restrictions import restrictions_of
from quota.access import KeyRecord, KeyState, Mark
from quota.evaluation import Outcome
from quota.routes import Price, Route, TellsCost, Tunnel, TunnelUnit

_KEY: Final = bytes(16)  # stands for the digest of any key
_METER_SCOPE: Final = "meter:"


class Check(StrEnum):
    """In the order in which they are looked at."""

    ROUTE = "route"
    PRINCIPAL = "principal"
    """The key or the token may be used at all."""
    REQUIREMENT = "requirement"
    """Scopes and roles that the route asks for."""
    ADDRESS = "address"
    SCOPE = "scope"
    """What the key may be used for."""
    PRICE = "price"


TITLES: Final[Mapping[Check, str]] = {
    Check.ROUTE: "A route holds the request",
    Check.PRINCIPAL: "The token or key is good",
    Check.REQUIREMENT: "What the route asks of a token",
    Check.ADDRESS: "From where the key may be used",
    Check.SCOPE: "What the key may be used for",
    Check.PRICE: "What the request costs",
}


@dataclass(frozen=True, slots=True)
class Supposed:
    """A request that is not sent."""

    org: str
    charges: Mapping[str, int] | None = None
    """None: what its route charges."""
    key: str | None = None
    user: str | None = None
    route: str | None = None
    """By its name; or by method, host and path."""
    method: str | None = None
    host: str | None = None
    path: str | None = None
    address: str | None = None
    """Of the client."""
    scopes: tuple[str, ...] = ()
    """Of its token."""
    roles: tuple[str, ...] = ()
    upgrade: str | None = None
    """The protocol that it asks to switch to."""

    @property
    def names_route(self) -> bool:
        return self.route is not None or self.path is not None


@dataclass(frozen=True, slots=True)
class Checked:
    """One of them, and what it says of the request."""

    check: Check
    outcome: Outcome
    text: str
    verdict: str = ""
    """Of one that refuses, as in logs and metrics."""
    remedy: str = ""
    """Of one that refuses: what would admit the request."""
    known: bool = True
    """False: what was asked does not tell."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Whose request it is, as it is published."""

    record: KeyRecord | None = None
    """None: it carries a token."""
    imported: bool = False
    """The key was made elsewhere, so its text names no environment."""
    mark: Mark | None = None
    """That refuses it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the request goes."""

    route: Route | Unrouted | Unreadable | None = None
    """None: it was not asked."""
    environments: tuple[str, ...] | None = None
    """Whose keys are accepted there; None: not known."""
    path: str | None = None
    """In the spelling that was matched."""


@dataclass(frozen=True, slots=True)
class Looked:
    checks: tuple[Checked, ...]
    charges: Mapping[str, int] = field(default_factory=dict)
    exempt: bool = False
    """Nothing else is looked at."""
    tunnel: Tunnel | None = None
    """What the connection costs beyond the request, once it has switched to the protocol that is asked for."""

    @property
    def refused(self) -> tuple[Checked, ...]:
        return tuple(each for each in self.checks if each.outcome is Outcome.REFUSED)


def look(supposed: Supposed, place: Place, principal: Principal, now: float) -> Looked:
    """All of them are looked at, also behind one that refuses."""
    route = place.route
    if isinstance(route, Unrouted | Unreadable):
        check = _unrouted(route) if isinstance(route, Unrouted) else _unreadable(route)
        return Looked((check,), supposed.charges or {})
    if route is not None and route.exempt:
        text = f"{route.name} is exempt: no token is asked for, and nothing is charged."
        return Looked((Checked(Check.ROUTE, Outcome.PASSED, text),), exempt=True)
    switches = route is not None and offers(route, supposed)
    charges = supposed.charges
    if charges is None:
        charges = {} if route is None else route.charges
    checks = [_principal(principal, place, now)]
    if route is not None:
        checks = [
            Checked(Check.ROUTE, Outcome.PASSED, _described(route, supposed, place)),
            *checks,
            _requirement(supposed, route, principal),
        ]
    if principal.record is not None:
        checks += [_address(supposed, principal.record), _scope(supposed, route, principal.record, charges)]
    if route is not None:
        checks.append(_price(route, charges, switches=switches))
    return Looked(tuple(checks), charges, tunnel=route.tunnel if route is not None and switches else None)


def offers(route: Route, supposed: Supposed) -> bool:
    """As `gateway/client/upgrades.py` does. What is not offered is ignored, and the request goes on without it."""
    asked = supposed.upgrade
    return supposed.method in (None, "GET") and asked is not None and asked.lower() in route.upgrades


def _unrouted(unrouted: Unrouted) -> Checked:
    if unrouted.allow:
        methods = ", ".join(unrouted.allow)
        text = f"The path is routed for other methods only: {methods}."
        return Checked(Check.ROUTE, Outcome.REFUSED, text, "method_not_allowed", f"Send it with one of {methods}.")
    text = "No route of the gateway holds the path."
    return Checked(Check.ROUTE, Outcome.REFUSED, text, "no_route", "Add a route to the gateway's settings.")


def _unreadable(unreadable: Unreadable) -> Checked:
    text = f"{unreadable.reason[:1].upper()}{unreadable.reason[1:]}."
    return Checked(Check.ROUTE, Outcome.REFUSED, text, "bad_request", "Spell the path and the host in one way only.")


def _described(route: Route, supposed: Supposed, place: Place) -> str:
    methods = "any method" if route.methods is None else ", ".join(route.methods)
    shadow = "; in shadow mode, which only records refusals" if route.shadow else ""
    text = f"{route.name}: {methods} of {route.host or ''}{route.path}{shadow}."
    if place.path is not None and place.path != supposed.path:
        text += f" The path is read as {place.path}."
    if supposed.upgrade is not None and not offers(route, supposed):
        text += f" No upgrade to {supposed.upgrade} is offered: it is ignored."
    return text


def _refused(check: Check, text: str, reason: Reason | str, remedy: str | None = None) -> Checked:
    word = reason.value if isinstance(reason, Reason) else reason
    return Checked(check, Outcome.REFUSED, text, f"token_{word}", remedy or sentences.of_principal(word))


def _principal(principal: Principal, place: Place, now: float) -> Checked:
    record, check = principal.record, Check.PRINCIPAL
    if record is not None:
        accepted = place.environments
        if accepted is not None and record.environment not in accepted and not principal.imported:
            named = ", ".join(accepted) or "none"
            text = f"The key is of the environment {record.environment}; the gateway accepts {named}."
            return _refused(check, text, Reason.KEY_ENVIRONMENT)
        if record.state is not KeyState.ACTIVE:
            word = record.state.name.lower()
            return _refused(check, f"The key is {word}.", f"key_{word}")
        if record.expires_s is not None and record.expires_s <= now:
            return _refused(check, "The key has expired.", Reason.KEY_EXPIRED)
    if principal.mark is not None:
        kind = principal.mark.kind.value
        return _refused(check, f"What is revoked of the {kind} refuses it.", f"{kind}_revoked")
    known = "The key is active." if record is not None else "Nothing that is revoked refuses the token."
    return Checked(check, Outcome.PASSED, known)


def _requirement(supposed: Supposed, route: Route, principal: Principal) -> Checked:
    check = Check.REQUIREMENT
    if not route.requires:
        return Checked(check, Outcome.NO_LIMIT, "The route asks for no scope and no role.")
    asked = [f"the scopes {', '.join(route.scopes)}"] if route.scopes else []
    asked += [f"one of the roles {', '.join(route.roles)}"] if route.roles else []
    text = f"The route asks for {' and '.join(asked)}"
    record = principal.record
    claims = Claims(
        supposed.org,
        None,
        inf,
        "",
        roles=frozenset(supposed.roles),
        scopes=frozenset(supposed.scopes),
        api_key=None if record is None else _KEY,
    )
    requirement = Requirement(route.name, route.scopes, route.roles, keys=route.keys)
    refused = requirement.refusal(claims, () if record is None else record.scopes)
    if refused is None:
        return Checked(check, Outcome.PASSED, f"{text}, which the request has.")
    if record is None:
        return _refused(
            check, f"{text}; the token has not.", refused.reason, f"Send a token with {' and '.join(asked)}."
        )
    if route.keys:
        remedy = f"Add the scope route:{route.name} to the key."
        return _refused(check, f"{text}; of keys, only those that name the route are let in.", refused.reason, remedy)
    return _refused(check, f"{text}, and lets no keys in.", refused.reason, "Send a token: no key will do.")


def _address(supposed: Supposed, record: KeyRecord) -> Checked:
    check, named = Check.ADDRESS, ", ".join(record.networks)
    if not record.networks:
        return Checked(check, Outcome.NO_LIMIT, "The key may be used from everywhere.")
    if supposed.address is None:
        return Checked(check, Outcome.PASSED, f"The key may be used from {named}. No address is supposed.", known=False)
    address = ip_address(supposed.address)
    if restrictions_of((), record.networks).hold(str(address).encode()):
        return Checked(check, Outcome.PASSED, f"{address} is within {named}.")
    remedy = f"Send it from {named}, or add {address} to the key's networks."
    return _refused(check, f"The key may be used from {named}, and not from {address}.", Reason.KEY_ADDRESS, remedy)


def _scope(supposed: Supposed, route: Route | None, record: KeyRecord, charges: Mapping[str, int]) -> Checked:
    check, method = Check.SCOPE, supposed.method or "GET"
    if not record.scopes:
        return Checked(check, Outcome.NO_LIMIT, "The key has no scopes: it may send every request.")
    scopes, named, known = record.scopes, " ".join(record.scopes), True
    if route is None:
        scopes = tuple(scope for scope in scopes if scope.startswith(_METER_SCOPE))
        known = scopes == record.scopes
    elif supposed.method is None:
        known = not any(scope.startswith("method:") for scope in scopes)
        scopes = tuple(scope for scope in scopes if not scope.startswith("method:"))
    # The gateway asks for the meters of the route, whatever one request costs.
    meters: Iterable[str] = charges if route is None else route.charges
    lacking = restrictions_of(scopes, ()).lacking("" if route is None else route.name, tuple(meters), method)
    if lacking:
        remedy = f"Add to the key's scopes: {lacking}."
        return _refused(check, f"The key's scopes are {named}; the request needs {lacking}.", Reason.KEY_SCOPE, remedy)
    return Checked(check, Outcome.PASSED, f"The key's scopes are {named}.", known=known)


def _price(route: Route, charges: Mapping[str, int], *, switches: bool) -> Checked:
    check = Check.PRICE
    for meter, units in charges.items():
        price = route.prices.get(meter)
        asked = price is not None and price.told_by in (TellsCost.HEADER, TellsCost.QUERY) and units != price.units
        if price is not None and asked and not price.least <= units <= price.most:
            text = f"{_teller(price)} must tell from {price.least:,} to {price.most:,} {meter}; {units:,} is refused."
            remedy = f"Let {_teller(price)} tell at most {price.most:,}."
            return Checked(check, Outcome.REFUSED, text, "bad_request", remedy)
    usual = "; ".join(_priced(meter, price) for meter, price in route.prices.items()) or "nothing"
    return Checked(check, Outcome.PASSED, f"{_opened(route, usual) if switches else usual}.")


def _opened(route: Route, usual: str) -> str:
    if route.tunnel is None:
        return f"{usual} for the opening, and nothing for what passes afterwards"
    unit = "message of the client" if route.tunnel.per is TunnelUnit.MESSAGE else "begun mebibyte of both directions"
    units = ", ".join(f"{units:,} {meter}" for meter, units in route.tunnel.charges.items())
    return f"{usual} for the opening; afterwards each {unit} costs {units}"


def _priced(meter: str, price: Price) -> str:
    units = f"{price.units:,} {meter}"
    match price.told_by:
        case TellsCost.NOBODY:
            return units
        case TellsCost.ANSWER:
            return f"{units} at first, up to {price.most:,} when the answer has told"
        case _:
            return f"{units}, or from {price.least:,} to {price.most:,} as {_teller(price)} tells"


def _teller(price: Price) -> str:
    return f"the {'field' if price.told_by is TellsCost.HEADER else 'parameter'} {price.name}"
