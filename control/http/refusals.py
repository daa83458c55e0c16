"""Every way in which a request can fail -> one problem document (RFC 9457). Logs are written where it happens."""

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from control.billing.failures import NotSubscribed, PlanNotSold, StripeAway, StripeRefused, SubscribedAlready
from control.cursors import CursorUnknown
from control.db import StoreUnavailable, TextUnusable
from control.documents import View
from control.entitlements.store import (
    BilledBySubscription,
    EntitlementMissing,
    MeterUnknown,
    PlanUnknown,
    VersionMismatch,
)
from control.http.documented import endpoints_of
from control.organizations.store import OrganizationUnknown
from quota import problems
from quota.ledger import LedgerUnavailable
from quota.problems import Problem

log = structlog.get_logger()

RETRY_SECONDS = "1"


class Refusal(HTTPException):
    """Refuses the request. The detail is told to the client."""

    def __init__(self, problem: Problem, detail: str, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(problem.status, detail, headers)
        self.problem = problem
        self.members = members


class ProblemDocument(View):
    """How every error is told (RFC 9457)."""

    type: str
    """What client code may branch on."""
    title: str
    status: int
    detail: str
    correlation_id: str | None = None
    """What to quote when asking for help; also in X-Request-Id."""
    errors: list[dict[str, str]] | None = None
    """For invalid requests: which field is wrong, and why."""


DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem document",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
}
"""For routers: how errors look in the OpenAPI document."""


def answer(
    problem: Problem,
    detail: str,
    scope: Scope,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    body = problems.body(problem, detail, scope.get("correlation_id"), members)
    return Response(body, problem.status, headers, problems.MEDIA_TYPE)


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    """All that the path takes (RFC 9110 section 10.2.1): the framework names those of the first route that holds it."""
    return sorted({method for endpoint in endpoints_of(app, scope["path"]) for method in endpoint.queries})


def tell_refusals(app: FastAPI) -> None:
    """Has the app answer each of these with its problem document."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, e: HTTPException) -> Response:
        if isinstance(e, Refusal):
            return answer(e.problem, e.detail, request.scope, e.headers, e.members)
        detail = e.detail if e.status_code not in (404, 405) else f"{request.method} {request.url.path}"
        headers = dict(e.headers or {})
        if e.status_code == 405 and (methods := _methods(app, request.scope)):
            headers["Allow"] = ", ".join(methods)
        return answer(problems.for_status(e.status_code), detail, request.scope, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, e: RequestValidationError) -> Response:
        # Names and reasons only: the value could be a secret in the wrong field.
        errors = [{"field": ".".join(map(str, fault["loc"])), "message": fault["msg"]} for fault in e.errors()]
        detail = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
        return answer(problems.INVALID, detail, request.scope, members={"errors": errors})

    @app.exception_handler(OrganizationUnknown)
    async def organization_unknown(request: Request, e: OrganizationUnknown) -> Response:
        return answer(problems.ORGANIZATION_UNKNOWN, f"No organization has the id {e}.", request.scope)

    @app.exception_handler(CursorUnknown)
    async def cursor_unknown(request: Request, e: CursorUnknown) -> Response:
        field = f"query.{e.parameter}"
        members = {"errors": [{"field": field, "message": str(e)}]}
        return answer(problems.INVALID, f"{field}: {e}", request.scope, members=members)

    @app.exception_handler(PlanUnknown)
    async def plan_unknown(request: Request, e: PlanUnknown) -> Response:
        errors = [{"field": "body.plan", "message": f"No plan that can be given has the code {e}."}]
        return answer(problems.INVALID, errors[0]["message"], request.scope, members={"errors": errors})

    @app.exception_handler(BilledBySubscription)
    async def billed_by_subscription(request: Request, e: BilledBySubscription) -> Response:
        detail = (
            f"The plan follows the subscription {e}: change or cancel that. What is laid over the plan can be set "
            "here, with the same plan and period, and the status suspended."
        )
        return answer(problems.CONFLICT, detail, request.scope)

    @app.exception_handler(SubscribedAlready)
    async def subscribed_already(request: Request, e: SubscribedAlready) -> Response:
        return answer(problems.CONFLICT, f"{e} has a subscription already: switch its plan.", request.scope)

    @app.exception_handler(NotSubscribed)
    async def not_subscribed(request: Request, e: NotSubscribed) -> Response:
        return answer(problems.CONFLICT, f"{e} has no subscription: begin with a checkout session.", request.scope)

    @app.exception_handler(PlanNotSold)
    async def plan_not_sold(request: Request, e: PlanNotSold) -> Response:
        return answer(problems.CONFLICT, f"{e}.", request.scope)

    @app.exception_handler(StripeAway)
    async def stripe_away(request: Request, e: StripeAway) -> Response:
        log.warning("a request needs Stripe", reason=str(e))
        detail = "Try again in a moment."
        return answer(problems.STRIPE_UNAVAILABLE, detail, request.scope, {"Retry-After": RETRY_SECONDS})

    @app.exception_handler(StripeRefused)
    async def stripe_refused(request: Request, e: StripeRefused) -> Response:
        log.warning("Stripe refused what a request needs", reason=str(e), code=e.code)
        members = {"stripe_code": e.code} if e.code else None
        return answer(problems.STRIPE_REFUSED, f"Stripe refused the request: {e}", request.scope, members=members)

    @app.exception_handler(VersionMismatch)
    async def version_mismatch(request: Request, e: VersionMismatch) -> Response:
        etag = {"ETag": f'"{e.found}"'} if e.found else None
        return answer(problems.PRECONDITION_FAILED, f"{e}: read it again.", request.scope, etag)

    @app.exception_handler(EntitlementMissing)
    async def not_entitled(request: Request, e: EntitlementMissing) -> Response:
        return answer(problems.NOT_FOUND, f"The organization {e} has no entitlement.", request.scope)

    @app.exception_handler(MeterUnknown)
    async def meter_unknown(request: Request, e: MeterUnknown) -> Response:
        errors = [{"field": "body", "message": str(e)}]
        return answer(problems.INVALID, f"{e}.", request.scope, members={"errors": errors})

    @app.exception_handler(TextUnusable)
    async def text_unusable(request: Request, e: TextUnusable) -> Response:
        return answer(problems.INVALID, f"{e}.", request.scope)

    @app.exception_handler(StoreUnavailable)
    async def store_unavailable(request: Request, e: StoreUnavailable) -> Response:
        log.warning("a request needs Postgres", reason=str(e))
        detail = "Try again in a moment."
        return answer(problems.STORE_UNAVAILABLE, detail, request.scope, {"Retry-After": RETRY_SECONDS})

    @app.exception_handler(LedgerUnavailable)
    async def ledger_unavailable(request: Request, e: LedgerUnavailable) -> Response:
        log.warning("a request needs Redis", reason=str(e))
        detail = "Try again in a moment."
        return answer(problems.LEDGER_UNAVAILABLE, detail, request.scope, {"Retry-After": RETRY_SECONDS})
