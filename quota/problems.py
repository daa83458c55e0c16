"""Every refusal and failure that a client can receive, as RFC 9457 problem types. One catalogue for both planes.

A type is a name that client code may branch on, so it never changes; titles and details are for people. Exhausted
quotas use the type that draft-ietf-httpapi-ratelimit-headers registers, with its member `violated-policies`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MEDIA_TYPE = "application/problem+json"
VIOLATED_POLICIES = "violated-policies"
"""Extension member: names of the exceeded policies, as in the `RateLimit-Policy` field."""

_IANA = "https://iana.org/assignments/http-problem-types#"
_OWN = "urn:quotagate:problem:"


@dataclass(frozen=True, slots=True)
class Problem:
    slug: str
    title: str
    status: int
    namespace: str = _OWN

    @property
    def type(self) -> str:
        return self.namespace + self.slug


CATALOGUE: Final[dict[str, Problem]] = {}


def _listed(slug: str, title: str, status: int, namespace: str = _OWN) -> Problem:
    problem = CATALOGUE[slug] = Problem(slug, title, status, namespace)
    return problem


# The request itself
BAD_REQUEST = _listed("bad-request", "Bad request", 400)
TOKEN_REFUSED = _listed("token-refused", "The token or API key is missing or refused", 401)
ACTIVATE_AGAIN = _listed("activate-again", "The site must be activated again", 401)
FORBIDDEN = _listed("forbidden", "The token or API key does not allow this", 403)
ACTIVATION_REFUSED = _listed("activation-refused", "The activation code is refused", 403)
NO_ROUTE = _listed("no-route", "No route for this path", 404)
NOT_FOUND = _listed("not-found", "No such resource", 404)
ORGANIZATION_UNKNOWN = _listed("organization-unknown", "No such organization", 404)
METHOD_NOT_ALLOWED = _listed("method-not-allowed", "Method not allowed", 405)
REQUEST_TIMEOUT = _listed("request-timeout", "The request did not arrive in time", 408)
CONFLICT = _listed("conflict", "Conflict with the current state", 409)
PRECONDITION_FAILED = _listed("precondition-failed", "The resource has changed since it was read", 412)
PAYLOAD_TOO_LARGE = _listed("payload-too-large", "The body is too large", 413)
UNSUPPORTED_MEDIA_TYPE = _listed("unsupported-media-type", "The content type is not supported", 415)
INVALID = _listed("invalid", "A field is invalid", 422)
HEADERS_TOO_LARGE = _listed("headers-too-large", "The header fields are too large", 431)
NOT_IMPLEMENTED = _listed("not-implemented", "Not implemented", 501)
VERSION_NOT_SUPPORTED = _listed("http-version-not-supported", "The HTTP version is not supported", 505)

# The plan: 402 where paying helps, 403 where the plan lacks the feature, 429 where waiting helps
NO_ENTITLEMENT = _listed("no-entitlement", "The organization has no active plan", 402)
METER_NOT_IN_PLAN = _listed("meter-not-in-plan", "The meter is not part of the plan", 403)
QUOTA_EXCEEDED = _listed("quota-exceeded", "Quota exceeded", 429, _IANA)
RATE_LIMITED = _listed("rate-limited", "Rate limit exceeded", 429)
CONCURRENCY_LIMITED = _listed("concurrency-limited", "Too many concurrent requests", 429)
COST_ABOVE_LIMIT = _listed("cost-above-limit", "One request costs more than the whole quota", 429)

# Our side, or the upstream's
INTERNAL = _listed("internal", "Internal error", 500)
UPSTREAM_UNREACHABLE = _listed("upstream-unreachable", "The upstream cannot be reached", 502)
UPSTREAM_INVALID = _listed("upstream-invalid", "The upstream's answer is not valid HTTP", 502)
UPSTREAM_AWAY = _listed("upstream-away", "The upstream is failing and gets no requests for a while", 503)
STRIPE_REFUSED = _listed("stripe-refused", "Stripe refused the request", 409)
STRIPE_UNAVAILABLE = _listed("stripe-unavailable", "Stripe does not answer", 503)
LEDGER_UNAVAILABLE = _listed("ledger-unavailable", "The quota ledger does not answer", 503)
KEYS_UNAVAILABLE = _listed("keys-unavailable", "No key is available to verify tokens", 503)
NOT_IN_FORCE = _listed("not-in-force", "The change is stored, and not in force yet", 503)
STORE_UNAVAILABLE = _listed("store-unavailable", "The database does not answer", 503)
ENTITLEMENT_PENDING = _listed("entitlement-pending", "The organization's plan is being loaded", 503)
OVERLOADED = _listed("overloaded", "The server is overloaded or shutting down", 503)
UPSTREAM_TIMEOUT = _listed("upstream-timeout", "The upstream did not answer in time", 504)

_BY_STATUS = {p.status: p for p in reversed(CATALOGUE.values())} | {404: NOT_FOUND, 429: RATE_LIMITED, 503: OVERLOADED}


def for_status(status: int) -> Problem:
    """The most general problem of an HTTP status, for errors that a framework raises."""
    return _BY_STATUS.get(status, INTERNAL if status >= 500 else BAD_REQUEST)


def document(
    problem: Problem, detail: str, correlation_id: str | None = None, extensions: Mapping[str, object] | None = None
) -> dict[str, object]:
    """One occurrence. The client sees `detail` and `extensions`: they hold no secret and no internal address."""
    members: dict[str, object] = {"type": problem.type, "title": problem.title, "status": problem.status}
    members["detail"] = detail
    if correlation_id is not None:
        members["correlation_id"] = correlation_id
    return {**(extensions or {}), **members}


def body(
    problem: Problem, detail: str, correlation_id: str | None = None, extensions: Mapping[str, object] | None = None
) -> bytes:
    """One occurrence as JSON; see `document`."""
    # ASCII with escapes: a detail may quote a path that is not valid Unicode.
    return json.dumps(document(problem, detail, correlation_id, extensions)).encode()
