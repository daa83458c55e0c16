"""Standard Webhooks signatures (https://github.com/standard-webhooks/standard-webhooks, version 1.0.0). Pure.

Ours are of our own notifications. Those of others are Svix's, who has the same scheme under names of its own: `svix-id`
for `webhook-id` (https://docs.svix.com/receiving/verifying-payloads/how-manual).
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Final

PREFIX = "whsec_"
KEY_BYTES_MIN, KEY_BYTES_MAX = 24, 64  # the specification's bounds
TOLERANCE_SECONDS: Final = 300
SIGNATURES_MAX: Final = 16  # of one delivery; there is one for each secret, of which there are two at most

_ID: Final = re.compile(rb"[!-~]{1,255}")
_TIME: Final = re.compile(rb"[0-9]{1,12}")
_SIGNATURES: Final = re.compile(rb"[!-~ ]{1,4096}")


class SignatureRefused(Exception):
    """The message is for whoever sent it, and names no secret."""


def key_of(secret: str) -> bytes:
    """The key of `whsec_<base64>`. Raises ValueError, which does not repeat the secret."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise ValueError(f"must be {PREFIX} and the base64 of {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes")
    return key


def signatures(keys: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The field `webhook-signature`: one signature for each key, so that a receiver may have either of them."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    made = (base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)
    return " ".join(f"v1,{signature}" for signature in made)


def check(
    keys: Sequence[bytes], headers: Iterable[tuple[bytes, bytes]], body: bytes, now: float, names: bytes = b"svix-"
) -> str:
    """The id of a delivery that was signed with one of the keys, a short time ago. `names`: how its fields begin.

    Raises SignatureRefused."""
    given = list(headers)
    id_ = _field(given, names + b"id", _ID)
    timestamp = _field(given, names + b"timestamp", _TIME)
    sent = _field(given, names + b"signature", _SIGNATURES).split()[:SIGNATURES_MAX]
    signed = b".".join((id_, timestamp, body))
    matches = False
    for key in keys:
        expected = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
        for signature in sent:
            matches |= hmac.compare_digest(expected, signature)
    if not matches:
        raise SignatureRefused("no signature matches a secret that is set here")
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise SignatureRefused(f"it was signed more than {TOLERANCE_SECONDS} seconds from now")
    return id_.decode()


def _field(headers: Iterable[tuple[bytes, bytes]], name: bytes, form: re.Pattern[bytes]) -> bytes:
    values = [value for given, value in headers if given == name]
    if len(values) != 1 or form.fullmatch(values[0]) is None:
        raise SignatureRefused(f"the header {name.decode()} is missing, or not readable")
    return values[0]
