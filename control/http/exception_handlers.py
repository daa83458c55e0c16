"""What the features raise, and the refusal that it is for a client.

A failure of a store or of Stripe is logged here. The client is told only that it may try again.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from control.access.guesses import TooManyGuesses
from control.access.issuing.store import RotationUnderWay, SigningKeyUnknown, SigningKeyUnreadable
from control.access.keys.store import KeyOver, KeyTaken, KeyUnknown, TooManyKeys
from control.access.people.members import LastOwner, MemberUnknown, OwnersOnly
from control.access.people.users import UserMirrored, UserUnknown
from control.access.publishing import NotInForce
from control.access.revocations import TooManyMarks
from control.actions.failures import (
    ActionOver,
    ActionUnknown,
    ChangedSince,
    NotPossible,
    NotUndoable,
    PreviewUnknown,
    SamePerson,
)
from control.billing.failures import (
    NotSubscribed,
    PlanNotSold,
    SecondPersonNeeded,
    StripeAway,
    StripeRefused,
    SubscribedAlready,
)
from control.cursors import CursorUnknown
from control.db import ReadTooLong, StoreUnavailable, TextUnusable
from control.entitlements.caps import CapChanged
from control.entitlements.catalogue import CatalogueChanged
from control.entitlements.changes import (
    BilledBySubscription,
    EntitlementMissing,
    PlanUnknown,
    VersionMismatch,
)
from control.entitlements.stored_state import MeterUnknown
from control.http.documented import endpoints_of
from control.http.in_words import errors_of
from control.http.refusals import Refusal, answer, invalid_field
from control.organizations.store import OrganizationDeleted, OrganizationMirrored, OrganizationUnknown
from quota import problems
from quota.ledger import LedgerUnavailable
from quota.problems import Problem

log = structlog.get_logger()

RETRY: Final = {"Retry-After": "1"}
TRY_AGAIN: Final = "Try again in a moment."


def handle_exceptions(app: FastAPI) -> None:
    """Has the app answer each of these with its problem document."""
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    for exception, refusal_of in REFUSALS.items():
        app.add_exception_handler(exception, _handler(refusal_of))


def _handler(refusal_of: Callable[[Any], Refusal]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(request: Request, e: Exception) -> Response:
        _log(request, e)
        return _response(request, refusal_of(e))

    return handle


def _response(request: Request, refusal: Refusal) -> Response:
    return answer(refusal.problem, refusal.detail, request.scope, refusal.headers, refusal.members)


def _log(request: Request, e: Exception) -> None:
    match e:
        case TooManyGuesses(first=True):
            log.warning("too many wrong secrets or tries: they wait", client=request.scope["client_address"])
        case StripeRefused():
            log.warning("Stripe refused what a request needs", reason=str(e), code=e.code)
        case StripeAway():
            log.warning("a request needs Stripe", reason=str(e))
        case SigningKeyUnreadable():
            log.error("a token cannot be signed", reason=str(e))
        case StoreUnavailable():
            log.warning("a request needs Postgres", reason=str(e))
        case LedgerUnavailable():
            log.warning("a request needs Redis", reason=str(e))


async def _on_http_exception(request: Request, e: Exception) -> Response:
    assert isinstance(e, HTTPException)  # noqa: S101  Starlette types every handler by Exception
    if isinstance(e, Refusal):
        return _response(request, e)
    detail = e.detail if e.status_code not in (404, 405) else f"{request.method} {request.url.path}"
    headers = dict(e.headers or {})
    if e.status_code == 405 and (methods := _methods(request)):
        headers["Allow"] = ", ".join(methods)
    return answer(problems.for_status(e.status_code), detail, request.scope, headers)


def _methods(request: Request) -> list[str]:
    """All that the path takes (RFC 9110 section 10.2.1): the framework names those of the first route that holds it."""
    endpoints = endpoints_of(request.app, request.scope["path"])
    return sorted({method for endpoint in endpoints for method in endpoint.queries})


async def _on_invalid_request(request: Request, e: Exception) -> Response:
    assert isinstance(e, RequestValidationError)  # noqa: S101  Starlette types every handler by Exception
    # Names and reasons only: the value could be a secret in the wrong field.
    found = (error for fault in e.errors() for error in errors_of(fault))
    # What both an endpoint and a dependency of it read is wrong once.
    errors = list({(error["field"], error["message"]): error for error in found}.values())
    detail = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
    return _response(request, Refusal(problems.INVALID, detail, errors=errors))


# Each of these is pure.


def _organization_unknown(e: OrganizationUnknown) -> Refusal:
    return Refusal(problems.ORGANIZATION_UNKNOWN, f"No organization has the id {e}.")


def _organization_deleted(e: OrganizationDeleted) -> Refusal:
    return Refusal(problems.CONFLICT, f"The organization {e} was deleted: restore it first.")


def _mirrored(e: Exception) -> Refusal:
    return Refusal(problems.CONFLICT, f"{e} is mirrored from the identity provider: change it there.")


def _user_unknown(e: UserUnknown) -> Refusal:
    return Refusal(problems.NOT_FOUND, f"No user has the id {e}.")


def _member_unknown(e: MemberUnknown) -> Refusal:
    return Refusal(problems.NOT_FOUND, f"The organization has no member {e}.")


def _last_owner(e: LastOwner) -> Refusal:
    return Refusal(problems.CONFLICT, f"The organization {e} would have no owner: first make somebody else one.")


def _owners_only(_: OwnersOnly) -> Refusal:
    return Refusal(problems.FORBIDDEN, "Only an owner may make or unmake owners (owners:write).")


def _cursor_unknown(e: CursorUnknown) -> Refusal:
    return invalid_field(f"query.{e.parameter}", str(e))


def _plan_unknown(e: PlanUnknown) -> Refusal:
    message = f"No available plan has the code {e}."
    return Refusal(problems.INVALID, message, errors=[{"field": "body.plan", "message": message}])


def _meter_unknown(e: MeterUnknown) -> Refusal:
    return Refusal(problems.INVALID, f"{e}.", errors=[{"field": "body", "message": str(e)}])


def _text_unusable(e: TextUnusable) -> Refusal:
    return Refusal(problems.INVALID, f"{e}.")


def _read_too_long(_: ReadTooLong) -> Refusal:
    return Refusal(problems.INVALID, "This would take too long to find: limit it to a time or an organization as well.")


def _entitlement_missing(e: EntitlementMissing) -> Refusal:
    return Refusal(problems.NOT_FOUND, f"The organization {e} has no entitlement.")


def _version_mismatch(e: VersionMismatch) -> Refusal:
    etag = {"ETag": f'"{e.current}"'} if e.current else None
    return Refusal(problems.PRECONDITION_FAILED, f"{e} Read the entitlement again.", etag)


def _billed_by_subscription(e: BilledBySubscription) -> Refusal:
    return Refusal(
        problems.CONFLICT,
        f"The organization's plan follows its subscription {e}: change or cancel the subscription. Here you can set "
        "overrides and the status suspended, if you name the same plan and period.",
    )


def _subscribed_already(e: SubscribedAlready) -> Refusal:
    return Refusal(problems.CONFLICT, f"The organization {e} has a subscription already: switch its plan.")


def _not_subscribed(e: NotSubscribed) -> Refusal:
    return Refusal(problems.CONFLICT, f"The organization {e} has no subscription: begin with a checkout session.")


def _plan_not_sold(e: PlanNotSold) -> Refusal:
    return Refusal(problems.CONFLICT, f"{e}.")


def _stripe_refused(e: StripeRefused) -> Refusal:
    members = {"stripe_code": e.code} if e.code else {}
    return Refusal(problems.STRIPE_REFUSED, f"Stripe refused the request: {e}", None, **members)


def _too_many_guesses(e: TooManyGuesses) -> Refusal:
    detail = "Too many wrong tries came from this address, or for this secret, or too many tries at all."
    return Refusal(problems.RATE_LIMITED, detail, {"Retry-After": str(e.retry_seconds)})


def _signing_key_unknown(e: SigningKeyUnknown) -> Refusal:
    return Refusal(problems.NOT_FOUND, f"No signing key has the id {e}.")


def _rotation_under_way(e: RotationUnderWay) -> Refusal:
    return Refusal(problems.CONFLICT, f"A new key is published already, and signs from {e} on.")


def _signing_key_unreadable(e: SigningKeyUnreadable) -> Refusal:
    return Refusal(problems.KEYS_UNAVAILABLE, "The signing key cannot be read; an incident says why.", RETRY)


def _key_unknown(_: KeyUnknown) -> Refusal:
    return Refusal(problems.NOT_FOUND, "The organization has no such key.")


def _key_taken(_: KeyTaken) -> Refusal:
    return Refusal(problems.CONFLICT, "There is a key with this hash already.")


def _conflict(e: Exception) -> Refusal:
    return Refusal(problems.CONFLICT, str(e))


def _changed_since(e: ChangedSince) -> Refusal:
    changed = [
        {
            "id": str(entry.id),
            "at": entry.at.isoformat(),
            "actor": entry.actor,
            "action": entry.action,
            "before": entry.before,
            "after": entry.after,
        }
        for entry in e.entries
    ]
    return Refusal(problems.CONFLICT, str(e), None, changed=changed)


def _second_person_needed(e: SecondPersonNeeded) -> Refusal:
    return Refusal(problems.FORBIDDEN, str(e), reason="second_person")


def _same_person(e: SamePerson) -> Refusal:
    return Refusal(problems.FORBIDDEN, str(e), reason="same_person")


def _action_unknown(_: ActionUnknown) -> Refusal:
    return Refusal(problems.NOT_FOUND, "There is no such action.")


def _preview_unknown(_: PreviewUnknown) -> Refusal:
    return invalid_field("body.state", "is no preview's: ask for the effect first")


def _not_in_force(_: NotInForce) -> Refusal:
    detail = "It is stored, and comes into force as soon as Redis is back. Repeat the call to know when."
    return Refusal(problems.NOT_IN_FORCE, detail, RETRY)


def _unavailable(problem: Problem) -> Callable[[Exception], Refusal]:
    return lambda _: Refusal(problem, TRY_AGAIN, RETRY)


REFUSALS: Final[Mapping[type[Exception], Callable[[Any], Refusal]]] = {
    OrganizationUnknown: _organization_unknown,
    OrganizationDeleted: _organization_deleted,
    OrganizationMirrored: _mirrored,
    UserUnknown: _user_unknown,
    UserMirrored: _mirrored,
    MemberUnknown: _member_unknown,
    LastOwner: _last_owner,
    OwnersOnly: _owners_only,
    CursorUnknown: _cursor_unknown,
    PlanUnknown: _plan_unknown,
    MeterUnknown: _meter_unknown,
    TextUnusable: _text_unusable,
    ReadTooLong: _read_too_long,
    EntitlementMissing: _entitlement_missing,
    VersionMismatch: _version_mismatch,
    BilledBySubscription: _billed_by_subscription,
    SubscribedAlready: _subscribed_already,
    NotSubscribed: _not_subscribed,
    KeyUnknown: _key_unknown,
    KeyTaken: _key_taken,
    KeyOver: _conflict,
    TooManyKeys: _conflict,
    TooManyMarks: _conflict,
    NotInForce: _not_in_force,
    ActionOver: _conflict,
    ActionUnknown: _action_unknown,
    CapChanged: _conflict,
    CatalogueChanged: _conflict,
    ChangedSince: _changed_since,
    NotPossible: _conflict,
    NotUndoable: _conflict,
    PreviewUnknown: _preview_unknown,
    SamePerson: _same_person,
    SecondPersonNeeded: _second_person_needed,
    PlanNotSold: _plan_not_sold,
    StripeRefused: _stripe_refused,
    TooManyGuesses: _too_many_guesses,
    SigningKeyUnknown: _signing_key_unknown,
    RotationUnderWay: _rotation_under_way,
    SigningKeyUnreadable: _signing_key_unreadable,
    StripeAway: _unavailable(problems.STRIPE_UNAVAILABLE),
    StoreUnavailable: _unavailable(problems.STORE_UNAVAILABLE),
    LedgerUnavailable: _unavailable(problems.LEDGER_UNAVAILABLE),
}
"""A subclass is refused as its base is."""
