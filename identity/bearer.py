"""The Authorization field -> the token in it. RFC 6750 section 2.1, RFC 9110 section 11.4."""

from typing import Final

from identity.refusals import Reason, TokenRefused

TOKEN_BYTES_MAX: Final = 8192
_FIELD_BYTES_MAX: Final = TOKEN_BYTES_MAX + 64  # with the scheme, and blanks around it


def bearer_token(authorization: bytes | None) -> bytes:
    """The token in the field's value, not yet verified. Raises TokenRefused unless there is exactly one."""
    if authorization is None:
        raise TokenRefused(Reason.MISSING)
    if len(authorization) > _FIELD_BYTES_MAX:
        raise TokenRefused(Reason.INVALID_REQUEST)
    scheme, _, credentials = authorization.strip(b" \t").partition(b" ")
    if scheme.lower() != b"bearer":
        raise TokenRefused(Reason.MISSING)  # with another scheme the client has not tried a token
    token = credentials.lstrip(b" ")
    if not token or b" " in token or b"," in token or len(token) > TOKEN_BYTES_MAX:
        raise TokenRefused(Reason.INVALID_REQUEST)
    return token
