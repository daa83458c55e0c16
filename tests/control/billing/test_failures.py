"""Which of Stripe's refusals another try may turn, and which not."""

from typing import Any

import pytest
import stripe

from control.billing.client import failure_of
from control.billing.failures import StripeAway, StripeForbidden, StripeMissing, StripeRefused


def error(kind: type[stripe.StripeError], status: int | None, code: str | None = None) -> stripe.StripeError:
    arguments: dict[str, Any] = {"code": code, "http_status": status}
    if kind in (stripe.InvalidRequestError, stripe.CardError):
        return kind("told", None, **arguments)  # these two take a parameter's name
    return kind("told", **arguments)


@pytest.mark.parametrize(
    "e",
    [
        error(stripe.APIConnectionError, None),
        error(stripe.RateLimitError, 429),
        error(stripe.InvalidRequestError, 429, "lock_timeout"),
        error(stripe.InvalidRequestError, 400, "lock_timeout"),
        error(stripe.APIError, 500),
        error(stripe.APIError, 503),
        error(stripe.IdempotencyError, 409, "idempotency_key_in_use"),
        error(stripe.APIError, 424),
    ],
    ids=str,
)
def test_stripe_that_cannot_answer_now_is_away(e: stripe.StripeError) -> None:
    assert isinstance(failure_of(e), StripeAway)


@pytest.mark.parametrize(
    ("e", "kind"),
    [
        (error(stripe.AuthenticationError, 401), StripeForbidden),
        (error(stripe.PermissionError, 403), StripeForbidden),
        (error(stripe.InvalidRequestError, 400, "api_key_expired"), StripeRefused),
        (error(stripe.InvalidRequestError, 400, "livemode_mismatch"), StripeRefused),
        (error(stripe.IdempotencyError, 400), StripeRefused),
        (error(stripe.CardError, 402, "card_declined"), StripeRefused),
    ],
    ids=str,
)
def test_what_somebody_may_mend_is_no_final_refusal(e: stripe.StripeError, kind: type[StripeRefused]) -> None:
    failure = failure_of(e)
    assert type(failure) is kind
    assert not failure.final


@pytest.mark.parametrize(
    ("e", "kind"),
    [
        (error(stripe.InvalidRequestError, 400), StripeRefused),
        (error(stripe.InvalidRequestError, 400, "parameter_invalid_integer"), StripeRefused),
        (error(stripe.InvalidRequestError, 404, "resource_missing"), StripeMissing),
        (error(stripe.InvalidRequestError, 400, "resource_missing"), StripeMissing),
    ],
    ids=str,
)
def test_an_invalid_request_is_refused_for_good(e: stripe.StripeError, kind: type[StripeRefused]) -> None:
    failure = failure_of(e)
    assert type(failure) is kind
    assert failure.final
