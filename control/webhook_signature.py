"""Standard Webhooks signatures (https://github.com/standard-webhooks/standard-webhooks, version 1.0.0). Pure."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
KEY_BYTES_MIN, KEY_BYTES_MAX = 24, 64  # the specification's bounds


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
