"""The `issuing` block of control.yaml."""

from base64 import b64decode
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from common.settings_file import SettingsConflict, SettingsModel
from common.urls import is_loopback, split_url

Text = Annotated[str, Field(min_length=1)]
MASTER_KEY_BYTES: Final = 32


def _master_key(text: str) -> bytes:
    try:
        key = b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != MASTER_KEY_BYTES:
        raise ValueError(
            f"each key must be the base64 of {MASTER_KEY_BYTES} bytes: `openssl rand -base64 32` makes one"
        )
    return key


def _master_keys(text: SecretStr) -> SecretStr:
    keys = [_master_key(each) for each in text.get_secret_value().split(",")] if text.get_secret_value() else []
    if len(keys) > 2 or len(set(keys)) < len(keys):
        raise ValueError("must be one key, or the new and the old one with a comma between")
    return text


def _issuer_url(url: str) -> str:
    if url:
        parts = split_url(url, ("https", "http"))
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError("must be an https URL, or an http URL on this machine")
        if parts.username is not None or parts.query or parts.fragment or url.endswith("/"):
            raise ValueError("must have no credentials, no query, no fragment and no slash at its end")
    return url


class Issuing(SettingsModel):
    """Tokens that the control plane itself issues: short-lived ones of organizations, and those of activated sites."""

    master_key: Annotated[SecretStr, AfterValidator(_master_keys)] = SecretStr("")
    """Seals the private signing keys in the database: the base64 of 32 bytes. While one replaces the other: the new
    one, a comma, the old one; then `quotagate signing-keys reencrypt`. Empty: nothing is issued here."""
    issuer: Annotated[str, AfterValidator(_issuer_url)] = ""
    """`iss` of the tokens, and the URL under which this port is reached: <issuer>/.well-known/jwks.json is the key
    set."""
    audience: Text = "quotagate"
    algorithm: Literal["EdDSA", "ES256"] = "EdDSA"
    """Of the next signing key. EdDSA is Ed25519."""
    token_seconds: Annotated[int, Field(ge=30, le=86_400)] = 900
    """The longest life of a token, and that of one for which nothing shorter is asked."""
    jwks_max_age_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    """For how long a copy of the key set may be used. A new key is published for longer than that before it signs."""
    rotate_days: Annotated[float, Field(ge=1, le=3650)] = 90
    """A signing key is replaced after so long."""

    @property
    def enabled(self) -> bool:
        return bool(self.master_key.get_secret_value())

    @property
    def master_keys(self) -> tuple[bytes, ...]:
        """The one that seals first."""
        return tuple(_master_key(each) for each in self.master_key.get_secret_value().split(","))

    @model_validator(mode="after")
    def _has_a_name(self) -> Self:
        if self.enabled and not self.issuer:
            raise SettingsConflict([(("issuer",), "is missing: tokens that are issued name it")])
        return self
