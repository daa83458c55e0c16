"""Idempotency-Key: what the field says, and the name that a request with it has in the ledger. Pure.

Source: draft-ietf-httpapi-idempotency-key-header, section 2.1; strings of RFC 8941, section 3.3.3. Most clients write
the key without quotes, which is the same key.
"""

import re
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Final

from gateway.routing.destinations import MeteredRoute

MALFORMED: Final = (
    "A request must have exactly one Idempotency-Key: 1 to 255 visible characters, as a string in quotes or bare."
)

# Separators are none of a bare key: a proxy that joins two fields puts a comma between them.
_BARE: Final = re.compile(rb"[!#-+\--:<-\[\]-~]{1,255}")
_STRING: Final = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')
_ESCAPED: Final = re.compile(rb'\\(["\\])')


def key_of(value: bytes) -> bytes | None:
    """The key that a field's value holds; None for a value that is none."""
    if _BARE.fullmatch(value):
        return value
    quoted = _STRING.fullmatch(value)
    return None if quoted is None else _ESCAPED.sub(rb"\1", quoted[1])


def name_of(key: bytes, route: MeteredRoute, request_line: bytes, charge_bulk: bytes) -> str:
    """What the key is told from others by: 128 bits, since a client chooses its keys.

    A repeated request is one with the same method, target and cost: the key of a cheap request pays for no dear one."""
    digest = blake2b(digest_size=16)
    for part in (route.name.encode(), request_line, charge_bulk, key):
        digest.update(b"%d:%b" % (len(part), part))
    return urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
