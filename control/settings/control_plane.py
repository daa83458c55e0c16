"""The settings of the control plane as a whole; larger blocks have files of their own."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from common.networks import Network
from common.otlp.settings import Collector
from common.redis_keeping import Persistence
from common.redis_url import RedisUrl
from common.settings_file import SettingsModel
from common.urls import is_loopback, split_url
from control.region import NUMBER_MAX, Region
from control.settings.activation import Activation
from control.settings.approvals import Approvals
from control.settings.issuing import Issuing
from control.settings.portal import Portal
from control.settings.regions import RegionName, RegionSettings, own_region
from control.settings.signin import SignIn
from control.webhook_signature import key_of
from identity.settings import Auth
from quota.keys import SHARDS_DEFAULT, SHARDS_MAX

ADMIN_TOKEN_CHARACTERS_MIN: Final = 16

Port = Annotated[int, Field(ge=0, le=65535)]
Text = Annotated[str, Field(min_length=1)]
Milliseconds = Annotated[int, Field(ge=1, le=600_000)]


def _with_scheme(*schemes: str) -> AfterValidator:
    def check(url: SecretStr) -> SecretStr:
        if urlsplit(url.get_secret_value()).scheme not in schemes:
            raise ValueError(f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return url

    return AfterValidator(check)


def _long_enough(token: SecretStr) -> SecretStr:
    if len(token.get_secret_value()) < ADMIN_TOKEN_CHARACTERS_MIN:
        raise ValueError(f"must have at least {ADMIN_TOKEN_CHARACTERS_MIN} characters")
    return token


class Listen(SettingsModel):
    """Where the control API answers."""

    host: Text = "127.0.0.1"
    port: Port = 8081


Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class Limits(SettingsModel):
    """How long a client may keep the control port waiting, and by how many connections."""

    head_seconds: Seconds = 10
    """From the connection, or from the first byte of a further request, to the end of the head; then 408."""
    body_seconds: Seconds = 30
    """From the end of the head to the end of the body; then 408."""
    idle_seconds: Seconds = 60
    """Between two requests of a connection."""
    write_seconds: Seconds = 30
    """A client that reads nothing of its answer for so long is disconnected."""
    connections_max: Count = 512
    """Beyond, a new connection replaces the one that has kept us waiting for the longest time; 503 if none does."""
    connections_per_address_max: Count = 256
    """The same among the connections of one address; for proxies that `forwarded` names there is no such limit."""


class Forwarded(SettingsModel):
    """Proxies in front of the control port."""

    trusted: tuple[Network, ...] = ()
    """Addresses or networks (10.0.0.0/8, 2001:db8::/32) whose X-Forwarded-For is believed. A proxy that is named here
    must write it itself."""


def _none_or_long_enough(token: SecretStr) -> SecretStr:
    return _long_enough(token) if token.get_secret_value() else token


class Expose(SettingsModel):
    """What everybody who reaches the control port may read. What is false needs the admin token."""

    docs: bool = False
    """/docs and /openapi.json."""
    metrics: bool = False
    """/-/metrics."""
    metrics_token: Annotated[SecretStr, AfterValidator(_none_or_long_enough)] = SecretStr("")
    """A bearer token for scrapers, which opens /-/metrics and nothing else; empty: there is none."""


PostgresDsn = Annotated[SecretStr, _with_scheme("postgresql", "postgres")]


class Replica(SettingsModel):
    """A streaming replica of the database, which is read where an answer may be a little old: analytics, lists of
    organizations, the journal."""

    dsn: PostgresDsn
    """As `postgres.dsn`, at the replica."""
    lag_seconds_max: Annotated[float, Field(ge=2, le=3600)] = 5
    """While what it has may be older, or it is away, the primary is read."""
    connections_max: Annotated[int, Field(ge=2, le=1000)] = 8


class Postgres(SettingsModel):
    """The control plane's own database."""

    dsn: PostgresDsn
    """postgresql://user:password@host:port/database; kept out of logs, since it can hold a password. The user is a
    member of the application's role, not the owner of the tables (`quotagate doctor` looks)."""
    session_dsn: PostgresDsn | None = None
    """Where a connection is a session of PostgreSQL's own, which the writers' leases need: one connection of each
    process. null: at `dsn`, too. Name PostgreSQL itself here where `dsn` leads through a pooler that pools
    transactions."""
    replica: Replica | None = None
    """null: everything is read at `dsn`."""
    connections_max: Annotated[int, Field(ge=4, le=1000)] = 16
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 30
    """A statement that takes longer is given up."""

    @property
    def session_way(self) -> str | None:
        """`session_dsn`, in the clear."""
        return None if self.session_dsn is None else self.session_dsn.get_secret_value()

    @property
    def dsns(self) -> tuple[str, ...]:
        """All ways to PostgreSQL."""
        ways = (self.dsn, self.session_dsn, None if self.replica is None else self.replica.dsn)
        return tuple(dsn.get_secret_value() for dsn in ways if dsn is not None)


class Redis(SettingsModel):
    """The ledger's Redis: the same one as the gateway's."""

    url: RedisUrl
    """As in gateway.yaml."""
    shards: Annotated[int, Field(ge=1, le=SHARDS_MAX)] = SHARDS_DEFAULT
    """The number of shards: fixed at installation, compared at start, and the same as the gateway's."""
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 2
    persistence: Persistence = "required"
    """As in gateway.yaml."""


class WriterSettings(SettingsModel):
    """How usage events move from Redis to Postgres."""

    poll_ms: Milliseconds = 100
    """Pause after a transaction that emptied the streams. Events that come meanwhile share the next one."""
    batch_entries_max: Annotated[int, Field(ge=100, le=1_000_000)] = 20_000
    """Stream entries of one transaction, over all shards."""
    keep_seconds: Annotated[int, Field(ge=10, le=86_400)] = 60
    """Written entries stay in Redis for this long: hydration and late corrections read them."""


class Retention(SettingsModel):
    """Which usage events stay in the database. Older days go into files; `quotagate usage restore` brings them back."""

    days: Annotated[int, Field(ge=2, le=36_500)]
    directory: Path
    dsn: PostgresDsn | None = None
    """The owner of the tables: only the owner can take days out. null: `postgres.dsn`, which must be the owner's
    then."""


class Reconcile(SettingsModel):
    """How counters are compared with events."""

    every_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60
    """From the beginning of one look at all organizations to the next."""
    repair: bool = True
    """Whether drift is repaired when it is found; otherwise it is only reported."""
    alert_percent: Annotated[float, Field(ge=0, le=100)] = 0.5
    """A counter that differs by more than this from its events opens an incident."""


def _with_host(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    if not parts.hostname or parts.port == 0:  # a port that is none raises ValueError
        raise ValueError("must name a host")
    return url


def _signing_secret(secret: SecretStr) -> SecretStr:
    key_of(secret.get_secret_value())
    return secret


def _stripe_key(key: SecretStr) -> SecretStr:
    if key.get_secret_value() and not re.match(r"(sk|rk)_(test|live)_.", key.get_secret_value()):
        raise ValueError("must be a secret or restricted key: sk_test_…, sk_live_…, rk_test_… or rk_live_…")
    return key


def _webhook_secret(secret: SecretStr) -> SecretStr:
    if secret.get_secret_value() and not secret.get_secret_value().startswith("whsec_"):
        raise ValueError("must start with whsec_")
    return secret


SigningSecret = Annotated[SecretStr, AfterValidator(_signing_secret)]


class Notifications(SettingsModel):
    """Notifications of the vendor's own system, by webhooks of the Standard Webhooks specification."""

    url: Annotated[SecretStr, _with_scheme("https", "http"), AfterValidator(_with_host)]
    """The endpoint. Each notification is sent until it is answered with 2xx."""
    secret: SigningSecret | Annotated[tuple[SigningSecret, ...], Field(min_length=1, max_length=2)]
    """The signing secret: `whsec_` and the base64 of 24 to 64 bytes; two while one replaces the other."""

    @property
    def secrets(self) -> tuple[SecretStr, ...]:
        return self.secret if isinstance(self.secret, tuple) else (self.secret,)


WebhookSecret = Annotated[SecretStr, AfterValidator(_webhook_secret)]


def _public_keys(source: str) -> str:
    if "://" in source:
        parts = split_url(source, ("https", "http"))
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError("must be an https URL, or an http URL on this machine")
    elif not Path(source).is_file():
        raise ValueError("the file does not exist")
    return source


class Stripe(SettingsModel):
    """Stripe Billing: sign-up, subscriptions, invoices."""

    secret_key: Annotated[SecretStr, AfterValidator(_stripe_key)] = SecretStr("")
    """sk_… or, with the permissions that docs/stripe.md names, rk_…; empty: nothing is sold here."""
    webhook_secret: WebhookSecret | Annotated[tuple[WebhookSecret, ...], Field(max_length=2)] = SecretStr("")
    """The secret with which Stripe signs webhooks, whsec_…; two while one replaces the other. Empty: webhooks are
    refused."""
    api_url: Annotated[str, Field(pattern=r"^(https?://[^/]+)?$")] = ""
    """Where Stripe's API is; empty: at Stripe."""
    timeout_seconds: Annotated[float, Field(gt=0, le=80)] = 10
    grace_days: Annotated[float, Field(ge=0, le=90)] = 7
    """An organization whose payment failed is served for so many days after the invoice was due; then it is
    suspended."""
    trial_days: Annotated[int, Field(ge=0, le=730)] = 0
    """The trial of a sign-up that does not ask for another one."""
    trial_without_card: bool = False
    """A trial needs no card to begin with; without one it ends in a pause."""
    automatic_tax: bool = False
    """Stripe Tax computes taxes, and asks for address and tax id."""
    upgrade_allowance: Literal["prorated", "full"] = "prorated"
    """What an upgrade within a period adds to the allowance: only the share of the period that is left, as Stripe
    prorates its price; or all of it."""
    overage_by: Literal["meter_events", "invoice_items"] = "meter_events"
    """How overage is reported to Stripe. meter_events: as it comes. invoice_items: when a period is over, on the draft
    of its invoice. Change it only when nothing waits to be sent."""
    overage_every_seconds: Annotated[float, Field(ge=1, le=86_400)] = 3600
    """From one report of overage to the next; what is left of a period is reported before its invoice is finalized."""

    @property
    def enabled(self) -> bool:
        return bool(self.secret_key.get_secret_value())

    @property
    def livemode(self) -> bool:
        return "_live_" in self.secret_key.get_secret_value()

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        given = self.webhook_secret if isinstance(self.webhook_secret, tuple) else (self.webhook_secret,)
        return tuple(secret.get_secret_value() for secret in given if secret.get_secret_value())


class LeakReports(SettingsModel):
    """API keys that a scanner has found in public: POST /v1/keys/leaks, as GitHub's secret scanning sends them."""

    public_keys: Annotated[str, AfterValidator(_public_keys)] = (
        "https://api.github.com/meta/public_keys/secret_scanning"
    )
    """With which the reports are signed: an https URL, or a file of the same form."""
    revoke_leaked: bool = False
    """Whether a key that was found is revoked at once. Otherwise an incident names it, and people decide."""


def _clerk_key(key: SecretStr) -> SecretStr:
    if key.get_secret_value() and not re.fullmatch(r"sk_(test|live)_[!-~]+", key.get_secret_value()):
        raise ValueError("must be a secret key: sk_test_… or sk_live_…")
    return key


ClerkSecret = Annotated[SecretStr, AfterValidator(lambda s: _signing_secret(s) if s.get_secret_value() else s)]


OrganizationRole = Literal["member", "admin", "owner"]


class Clerk(SettingsModel):
    """Users, organizations and members are mirrored from Clerk."""

    secret_key: Annotated[SecretStr, AfterValidator(_clerk_key)] = SecretStr("")
    """sk_…, with which Clerk is asked; empty: nothing is mirrored."""
    webhook_secret: ClerkSecret | Annotated[tuple[ClerkSecret, ...], Field(max_length=2)] = SecretStr("")
    """The secret with which Clerk signs webhooks, whsec_…; two while one replaces the other. Empty: webhooks are
    refused, and everything is looked at now and then only."""
    api_url: Annotated[str, Field(pattern=r"^https?://[^/]+$")] = "https://api.clerk.com"
    timeout_seconds: Annotated[float, Field(gt=0, le=80)] = 10
    resync_seconds: Annotated[float, Field(ge=60, le=604_800)] = 3600
    """Everything is looked at so often, which finds what no webhook told of."""
    roles: dict[str, OrganizationRole] = Field(
        default={"org:member": "member", "org:admin": "admin", "org:owner": "owner"}, max_length=100
    )
    """What Clerk's roles are called here; another role is a member's."""

    @property
    def enabled(self) -> bool:
        return bool(self.secret_key.get_secret_value())

    @property
    def webhook_keys(self) -> tuple[bytes, ...]:
        given = self.webhook_secret if isinstance(self.webhook_secret, tuple) else (self.webhook_secret,)
        return tuple(key_of(secret.get_secret_value()) for secret in given if secret.get_secret_value())


Percent = Annotated[int, Field(ge=1, le=1000)]


class Settings(SettingsModel):
    """The control plane's settings."""

    listen: Listen = Listen()
    limits: Limits = Limits()
    forwarded: Forwarded = Forwarded()
    expose: Expose = Expose()
    postgres: Postgres
    redis: Redis
    admin_token: Annotated[SecretStr, AfterValidator(_long_enough)]
    """The bearer token of the admin API, at least 16 characters."""
    telemetry: Collector = Collector()
    """Spans of requests and services: docs/telemetry.md."""
    auth: Auth | None = None
    """How organizations' tokens are verified, by the same block as in gateway.yaml; null: only the admin token opens
    the API, and organizations cannot read their own entitlement."""
    issuing: Issuing = Issuing()
    activation: Activation = Activation()
    writer: WriterSettings = WriterSettings()
    thresholds_percent: Annotated[tuple[Percent, ...], Field(max_length=10)] = (80, 100)
    """Percentages of an allowance. Each is an event when so much is used, once in a period. A new percentage may start
    with the next period."""
    notifications: Notifications | None = None
    """null: the vendor's system is not notified. Events are recorded all the same."""
    reconcile: Reconcile = Reconcile()
    clock_skew_seconds_max: Annotated[float, Field(gt=0, le=3600)] = 2
    """An incident is open while the clock of this machine, or of Postgres, differs by more from that of Redis, by which
    periods begin and end."""
    retention: Retention | None = None
    """null: all usage events stay in the database."""
    costs: Path | None = None
    """A file like config/costs.yaml: what serving costs, for the analytics. null: nobody has said."""
    refusals_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """For so long refused requests are kept for those who ask why; `refusals` in gateway.yaml bounds how many."""
    incidents_days: Annotated[int, Field(ge=1, le=3650)] | None = 365
    """Closed incidents are dropped after so many days, with their notes; the journal keeps what was done about them.
    null: never."""
    notifications_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """Notifications that were delivered or given up are dropped after so many days."""
    leak_reports: LeakReports | None = None
    """null: nobody reports leaked keys."""
    stripe: Stripe = Stripe()
    signin: SignIn = SignIn()
    approvals: Approvals = Approvals()
    portal: Portal = Portal()
    clerk: Clerk = Clerk()
    region: str | None = None
    """Which of `regions` this control plane works for, with its Redis."""
    regions: dict[RegionName, RegionSettings] = Field(default={}, max_length=NUMBER_MAX + 1)
    """Those that share this database, by name; the same in each of them. None: there is one, without a name."""

    @property
    def own_region(self) -> Region:
        return own_region(self.region, self.regions)

    @model_validator(mode="after")
    def _one_of_its_regions(self) -> Self:
        own_region(self.region, self.regions)
        return self
