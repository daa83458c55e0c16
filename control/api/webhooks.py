"""`POST /api/webhooks/stripe`: an event is verified, filed and answered. It is processed afterwards (`inbox.py`)."""

import hmac
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import structlog
from fastapi import APIRouter, Request, Response

from control import incidents
from control.billing.objects import Object, ObjectUnreadable, parsed
from control.http.context import Ctx
from control.http.refusals import DOCUMENTED, Refusal
from quota import problems

log = structlog.get_logger()
router = APIRouter(prefix="/api/webhooks", tags=["stripe"], responses=DOCUMENTED)

TOLERANCE_SECONDS = 300  # https://docs.stripe.com/webhooks#replay-attacks
SIGNATURES_MAX: Final = 16  # of one header; Stripe sends one for each secret, of which there are two at most
_SIGNATURE: Final = re.compile(rb"[!-~ ]{1,4096}")
_TIME: Final = re.compile(rb"[0-9]{1,12}")
_NAME: Final = re.compile(r"[!-~]{1,255}")


class SignatureRefused(Exception):
    """The message is for whoever sent it, and names no secret."""


def verified(payload: bytes, headers: Sequence[bytes], secrets: Sequence[str], now: float) -> Object:
    """The event in a signed body. `headers`: the values of Stripe-Signature. Raises SignatureRefused.

    https://docs.stripe.com/webhooks#verify-manually. stripe's own check takes one secret, lets timestamps of the future
    pass, and fails in other ways than by refusing on a header that Stripe would not write."""
    signed_at = _check_signature(payload, headers, secrets)
    if abs(now - signed_at) > TOLERANCE_SECONDS:
        raise SignatureRefused(f"it was signed more than {TOLERANCE_SECONDS} seconds from now")
    try:
        event = parsed(payload)
    except ObjectUnreadable as e:
        raise SignatureRefused("the body is not JSON that can be stored") from e
    if not isinstance(event, dict) or not _is_name(event.get("id")) or not _is_name(event.get("type")):
        raise SignatureRefused("the body is not an event")
    if not isinstance(event.get("livemode", False), bool):
        raise SignatureRefused("the event does not say its mode")
    return event


def _check_signature(payload: bytes, headers: Sequence[bytes], secrets: Sequence[str]) -> int:
    """When it was signed, with one of the secrets: seconds since the epoch."""
    if not headers:
        raise SignatureRefused("the Stripe-Signature header is missing")
    readable = _SIGNATURE.fullmatch(headers[0]) if len(headers) == 1 else None
    if readable is None:
        raise SignatureRefused("the Stripe-Signature header is not readable")
    parts = [part.strip(b" ").partition(b"=") for part in headers[0].split(b",")]
    times = [value for name, _, value in parts if name == b"t"]
    signatures = [value for name, _, value in parts if name == b"v1"]
    if len(times) != 1 or not _TIME.fullmatch(times[0]) or not signatures:
        raise SignatureRefused("the Stripe-Signature header needs one time and a v1 signature")
    for secret in secrets:
        expected = hmac.new(secret.encode(), times[0] + b"." + payload, sha256).hexdigest().encode()
        if any(hmac.compare_digest(expected, signature) for signature in signatures[:SIGNATURES_MAX]):
            return int(times[0])
    raise SignatureRefused("no signature matches a secret that is set here")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


@router.post("/stripe", include_in_schema=False)  # who calls it is proved by a signature, not by a token
async def receive(request: Request, ctx: Ctx) -> Response:
    """Where Stripe sends its events. 200 once an event is filed, 400 for what Stripe did not sign."""
    billing = ctx.billing
    if billing is None or not billing.settings.webhook_secrets:
        raise Refusal(problems.NOT_FOUND, "No secret for Stripe's webhooks is set.")
    payload, now = await request.body(), ctx.host_clock()
    signatures = [value for name, value in request.scope["headers"] if name == b"stripe-signature"]
    try:
        event = verified(payload, signatures, billing.settings.webhook_secrets, now)
    except SignatureRefused as e:
        log.warning("refused a webhook", reason=str(e))
        raise Refusal(problems.BAD_REQUEST, f"The webhook is refused: {e}.") from e
    if event.get("livemode", False) is not billing.settings.livemode:
        mode = "live" if event.get("livemode") else "test"
        async with ctx.db.transaction() as connection:
            content = {"event": event["id"], "type": event["type"], "mode": mode}
            await incidents.open(connection, now, "stripe_wrong_mode", mode, None, content)
        raise Refusal(problems.BAD_REQUEST, f"The event is of the {mode} mode, and the key is not.")
    await billing.inbox.file([event])
    return Response(status_code=200)
