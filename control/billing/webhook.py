"""`POST /api/webhooks/stripe`: verified, filed, answered. What follows from it happens afterwards (`inbox.py`)."""

import json
from collections.abc import Sequence

import stripe
import structlog
from fastapi import APIRouter, Request, Response

from control import incidents
from control.billing.objects import Object
from control.context import Ctx
from control.http.refusals import DOCUMENTED, Refusal
from quota import problems

log = structlog.get_logger()
router = APIRouter(prefix="/api/webhooks", tags=["stripe"], responses=DOCUMENTED)

TOLERANCE_SECONDS = 300  # https://docs.stripe.com/webhooks#replay-attacks


class SignatureRefused(Exception):
    """The message is for whoever sent it, and names no secret."""


def verified(payload: bytes, header: str | None, secrets: Sequence[str], now: float) -> Object:
    """The event in a signed body. Raises SignatureRefused.

    stripe's own check takes one secret, and lets timestamps of the future pass."""
    if header is None:
        raise SignatureRefused("the Stripe-Signature header is missing")
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(payload, header, secret)
        except stripe.SignatureVerificationError:
            continue
        except (TypeError, ValueError) as e:  # a signature or a body that is no text
            raise SignatureRefused("the signature or the body is not readable") from e
        break
    else:
        raise SignatureRefused("no signature is of a secret that is set here")
    signed_at = int(next(part[2:] for part in header.split(",") if part.startswith("t=")))
    if abs(now - signed_at) > TOLERANCE_SECONDS:
        raise SignatureRefused(f"it was signed more than {TOLERANCE_SECONDS} seconds from now")
    try:
        event = json.loads(payload.replace(b"\\u0000", b""))  # which PostgreSQL cannot hold, and nobody needs
    except ValueError as e:
        raise SignatureRefused("the body is no JSON") from e
    if not isinstance(event, dict) or not isinstance(event.get("id"), str) or not isinstance(event.get("type"), str):
        raise SignatureRefused("the body is no event")
    return event


@router.post("/stripe", include_in_schema=False)  # who calls it is proved by a signature, not by a token
async def receive(request: Request, ctx: Ctx) -> Response:
    """Where Stripe sends its events. 200 once an event is filed, 400 for what Stripe did not sign."""
    billing = ctx.billing
    if billing is None or not billing.settings.webhook_secrets:
        raise Refusal(problems.NOT_FOUND, "No secret for Stripe's webhooks is set here.")
    payload, now = await request.body(), ctx.clock()
    try:
        event = verified(payload, request.headers.get("stripe-signature"), billing.settings.webhook_secrets, now)
    except SignatureRefused as e:
        log.warning("refused a webhook", reason=str(e))
        raise Refusal(problems.BAD_REQUEST, f"The webhook is refused: {e}.") from e
    if event.get("livemode", False) is not billing.settings.livemode:
        mode = "live" if event.get("livemode") else "test"
        async with ctx.db.transaction() as connection:
            content = {"event": event["id"], "type": event["type"], "mode": mode}
            await incidents.open(connection, now, "stripe_wrong_mode", mode, None, content)
        raise Refusal(problems.BAD_REQUEST, f"The event is of the {mode} mode, which is not the key's.")
    await billing.inbox.file([event])
    return Response(status_code=200)
