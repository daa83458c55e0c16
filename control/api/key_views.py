"""API keys as the API takes and shows them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from common.addresses import plain_network
from control.access.keys.terms import GRACE_SECONDS_MAX, Terms, quotas_of
from control.api.entitlement_views import RateView
from control.api.entitlements import RateBody
from control.documents import Body, BoundedMoment, View, Whole
from control.entitlements.plans import Meter
from control.sql.keys import Key
from quota.access import PERIOD, SCOPE_PATTERN, USER_BYTES_MAX, WINDOW_SECONDS_MAX, Quota, encoded_user
from quota.model import UNITS_MAX

KEY_ID_EXAMPLE = "5sGvq0TzR2Xk"
KEYS_IMPORTED_MAX = 1000

KeyState = Literal["active", "disabled", "expired", "revoked"]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Environment = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,15}$")]
Reason = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]+$")]


def _user(user: str) -> str:
    if encoded_user(user) is None or "\x1f" in user:
        raise ValueError(f"must have at most {USER_BYTES_MAX} bytes, percent-encoded")
    return user


def _network(text: str) -> str:
    try:
        return str(plain_network(text))
    except ValueError:
        raise ValueError("must be an address or a network, as in 192.0.2.7 or 2001:db8::/32") from None


def _distinct(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(texts))


User = Annotated[str, Field(min_length=1, max_length=USER_BYTES_MAX), AfterValidator(_user)]
Scopes = Annotated[list[Annotated[str, Field(pattern=SCOPE_PATTERN)]], Field(max_length=50), AfterValidator(_distinct)]
Networks = Annotated[
    list[Annotated[str, Field(max_length=50), AfterValidator(_network)]],
    Field(max_length=50),
    AfterValidator(_distinct),
]


class QuotaBody(Body):
    """Units of a meter that the key may use in a window, within what its organization may use."""

    meter: Meter
    units: Annotated[int, Whole, Field(strict=True, ge=0, le=UNITS_MAX)]
    window_seconds: Annotated[int, Whole, Field(strict=True, ge=1, le=WINDOW_SECONDS_MAX)] | None = None
    """3600: each hour; 86400: each day, UTC. null: each period of the organization."""

    def value(self) -> Quota:
        return Quota(self.meter, self.units, PERIOD if self.window_seconds is None else self.window_seconds)


def _one_for_each_window(quotas: list[QuotaBody]) -> list[QuotaBody]:
    if len({(quota.meter, quota.window_seconds) for quota in quotas}) != len(quotas):
        raise ValueError("a meter has two quotas for one window")
    return quotas


Quotas = Annotated[list[QuotaBody], Field(max_length=20), AfterValidator(_one_for_each_window)]


class KeyTermsBody(Body):
    name: Name = "API key"
    """For people."""
    user: User | None = None
    """The user that it belongs to: its usage is reported by user, too, and a revocation of the user refuses it."""
    scopes: Scopes = Field(default=[])
    """`route:<name>`, `meter:<name>`, `method:<GET>`. Of one kind any fits, of several kinds each must; empty: all."""
    networks: Networks = Field(default=[])
    """Addresses and networks from which it may be used; empty: all."""
    quotas: Quotas = Field(default=[])
    rate: RateBody | None = None
    """A rate limit of its own."""
    expires_at: BoundedMoment | None = None
    """null: never. Fractions of a second are ignored."""

    def terms(self, *, enabled: bool = True) -> Terms:
        return Terms(
            name=self.name,
            scopes=tuple(self.scopes),
            networks=tuple(self.networks),
            quotas=tuple(quota.value() for quota in self.quotas),
            rate=self.rate.value() if self.rate else None,
            expires_at=self.expires_at.replace(microsecond=0) if self.expires_at else None,
            enabled=enabled,
        )


class KeyBody(KeyTermsBody):
    environment: Environment | None = None
    """One of the settings' `auth.keys.environments`; the first of them by default."""


class KeyPatch(Body):
    """What is left out stays as it is; null: none. A key's user and environment are for its whole life."""

    name: Name | None = None
    enabled: bool | None = None
    """false: it is refused (401) until it is enabled again."""
    scopes: Scopes | None = None
    networks: Networks | None = None
    quotas: Quotas | None = None
    rate: RateBody | None = None
    expires_at: BoundedMoment | None = None

    def edit(self, before: Terms) -> Terms:
        given = self.model_fields_set
        expires_at = self.expires_at.replace(microsecond=0) if self.expires_at else None
        quotas = tuple(quota.value() for quota in self.quotas or ())
        return Terms(
            name=before.name if self.name is None else self.name,
            enabled=before.enabled if self.enabled is None else self.enabled,
            scopes=tuple(self.scopes or ()) if "scopes" in given else before.scopes,
            networks=tuple(self.networks or ()) if "networks" in given else before.networks,
            quotas=quotas if "quotas" in given else before.quotas,
            rate=(self.rate.value() if self.rate else None) if "rate" in given else before.rate,
            expires_at=expires_at if "expires_at" in given else before.expires_at,
        )


class RollBody(Body):
    grace_seconds: Annotated[int, Whole, Field(strict=True, ge=0, le=GRACE_SECONDS_MAX)] = 86_400
    """The old key works for so long; 0: it is revoked at once."""


class ImportedKeyBody(KeyTermsBody):
    hash: Annotated[str, Field(min_length=43, max_length=64)]
    """SHA-256 of the key's whole text, in hex or base64."""
    environment: Environment | None = None
    starts_with: Annotated[str, Field(max_length=32, pattern=r"^[!-~]*$")] = ""
    """For people: what the key begins with."""
    last_four: Annotated[str, Field(pattern=r"^[!-~]{4}$")] | None = None


class ImportBody(Body):
    keys: Annotated[list[ImportedKeyBody], Field(min_length=1, max_length=KEYS_IMPORTED_MAX)]


class ImportedView(View):
    hash: str
    """As it was sent."""
    id: str | None
    """The key that it is from now on, or was before. null: another organization has a key with this hash."""


class ImportView(View):
    keys: list[ImportedView]
    """In the order of the request."""
    published: bool
    """false: Redis could not be told yet, and the keys work as soon as it can be."""


class QuotaView(View):
    meter: str
    units: int
    window_seconds: int | None
    """null: each period of the organization."""


class KeyView(View):
    id: str
    name: str
    starts_with: str
    """What the key begins with."""
    last_four: str | None
    environment: str
    user: str | None
    scopes: list[str]
    networks: list[str]
    quotas: list[QuotaView]
    rate: RateView | None
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """The minute of the last admitted request, once it is written to the database."""
    rolled_from: str | None
    rolled_to: str | None
    imported: bool


class NewKeyView(KeyView):
    key: str
    """The key itself. It is shown once, and is nowhere else: only its SHA-256 is stored."""
    published: bool
    """false: Redis could not be told yet, and the key works as soon as it can be."""


class RolledView(View):
    old: KeyView
    new: NewKeyView
    """Where its `published` is false, the old key works on until Redis is told."""


class KeyPage(View):
    keys: list[KeyView]
    """The newest first."""
    next: str | None
    """`before` of the next page; null on the last."""


def state_of(key: Key, now: float) -> KeyState:
    if key.state != "revoked" and key.expires_at is not None and key.expires_at.timestamp() <= now:
        return "expired"
    states: dict[str, KeyState] = {"active": "active", "disabled": "disabled", "revoked": "revoked"}
    return states[key.state]


def quota_views(quotas: Iterable[Quota]) -> list[QuotaView]:
    return [
        QuotaView(meter=meter, units=units, window_seconds=None if seconds == PERIOD else seconds)
        for meter, units, seconds in quotas
    ]


def key_view(key: Key, now: float) -> KeyView:
    rate = None
    if key.rate_requests is not None and key.rate_seconds is not None and key.rate_burst is not None:
        rate = RateView(requests=key.rate_requests, seconds=key.rate_seconds, burst=key.rate_burst)
    return KeyView(
        id=key.id,
        name=key.name,
        starts_with=key.starts_with,
        last_four=key.last_four,
        environment=key.environment,
        user=key.user_id,
        scopes=list(key.scopes),
        networks=list(key.networks),
        quotas=quota_views(quotas_of(key.quotas)),
        rate=rate,
        state=state_of(key, now),
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.used_at,
        rolled_from=key.rolled_from,
        rolled_to=key.rolled_to,
        imported=key.imported,
    )
