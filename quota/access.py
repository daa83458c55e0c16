"""Who may use an organization, as it is published: API keys, marks of what is revoked, paths, and version words.

Every change of it is published with a newer version of the organization (lua/publish.lua). A gateway remembers what it
has read together with that version, and each take says the version again.
"""

import hashlib
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import ip_network
from struct import Struct
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from quota.keys import METER_PATTERN, ORG_PATTERN, is_meter, is_org
from quota.model import UNITS_MAX, RateLimit

KEY_ID_PATTERN = r"^[A-Za-z0-9]{12}$"
ENVIRONMENT_PATTERN = r"^[a-z][a-z0-9_]{0,15}$"
SCOPE_PATTERN = r"^(?:route|meter|method):[!-~]{1,64}$"
ENVIRONMENT_DEFAULT = "live"
DIGEST_BYTES = 16
USER_BYTES_MAX = 128  # encoded
MARK_ID_BYTES_MAX = 64  # a longer id is replaced by its digest
WINDOW_SECONDS_MAX = 366 * 86_400
PERIOD = 0
"""In place of a window's seconds: the organization's period."""

_USER: Final = r"(?:[A-Za-z0-9_.:@|-]|%[0-9A-F]{2}){1,128}"
PATH_PATTERN: Final = rf"({ORG_PATTERN[1:-1]})(?:/u:({_USER}))?(?:/k:({KEY_ID_PATTERN[1:-1]}))?"
"""Groups: organization, user as it is encoded, id of the key."""
_PATH = re.compile(PATH_PATTERN + r"\Z")
_KEY_ID = re.compile(KEY_ID_PATTERN.replace("$", r"\Z"))
_ENVIRONMENT = re.compile(ENVIRONMENT_PATTERN.replace("$", r"\Z"))
_SCOPE = re.compile(SCOPE_PATTERN.replace("$", r"\Z"))


# Paths


class Path(NamedTuple):
    """Who was charged: an organization, and the user and the key within it, where they are known."""

    org: str
    user: str | None = None
    key: str | None = None
    """The id of the API key."""

    def __str__(self) -> str:
        user = None if self.user is None else encoded_user(self.user)
        return self.org + (f"/u:{user}" if user else "") + (f"/k:{self.key}" if self.key else "")

    @classmethod
    def parse(cls, text: str) -> "Path":
        """Raises ValueError for what is no path."""
        if (match := _PATH.match(text)) is None:
            raise ValueError(f"a path must be an organization, /u:<user>, /k:<id of a key>: {text!r}")
        org, user, key = match.groups()
        return cls(org, None if user is None else decoded_user(user), key)


def encoded_user(user: str) -> str | None:
    """A user as a path has it. None for one that a path leaves out, since it is too long or cannot be stored."""
    try:
        encoded = quote(user, safe="._:@|-").replace("~", "%7E")
    except UnicodeEncodeError:
        return None
    return encoded if 0 < len(encoded) <= USER_BYTES_MAX and "\0" not in user else None


def decoded_user(encoded: str) -> str:
    """Raises ValueError for what `encoded_user` does not make."""
    if "%" not in encoded and len(encoded) <= USER_BYTES_MAX:
        return encoded
    user = unquote(encoded, errors="replace")
    if encoded_user(user) != encoded:
        raise ValueError(f"a user must be percent-encoded UTF-8 of at most {USER_BYTES_MAX} bytes: {encoded!r}")
    return user


def org_of(path: str) -> str:
    return path.partition("/")[0]


def is_key_id(text: str) -> bool:
    return _KEY_ID.match(text) is not None


def check_path(path: str) -> None:
    """Raises ValueError."""
    if not is_org(path):  # most are
        Path.parse(path)


# Keys


class KeyState(IntEnum):
    """The state of an API key, with its number in a record."""

    ACTIVE = 0
    DISABLED = 1
    REVOKED = 2


class Quota(NamedTuple):
    """Units of one meter that a principal may use in a window, within what its organization may use."""

    meter: str
    units: int
    window_seconds: int = PERIOD
    """Windows are aligned to 1970, UTC. PERIOD: the organization's period."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is published of an API key."""

    id: str
    state: KeyState = KeyState.ACTIVE
    expires_s: int | None = None
    """Seconds since 1970; None: never."""
    environment: str = ENVIRONMENT_DEFAULT
    user: str | None = None
    scopes: tuple[str, ...] = ()
    """`route:<name>`, `meter:<name>`, `method:<GET>`. Of one kind any fits, of several kinds each must; none: all."""
    networks: tuple[str, ...] = ()
    """From which it may be used, as `192.0.2.0/24`; none: from everywhere."""
    quotas: tuple[Quota, ...] = ()
    rate: RateLimit | None = None

    def __post_init__(self) -> None:
        if not is_key_id(self.id):
            raise ValueError(f"a key's id must match {KEY_ID_PATTERN}: {self.id!r}")
        if self.expires_s is not None and not 0 < self.expires_s < 2**40:
            raise ValueError(f"expires_s must be seconds since 1970: {self.expires_s}")
        if not _ENVIRONMENT.match(self.environment):
            raise ValueError(f"an environment must match {ENVIRONMENT_PATTERN}: {self.environment!r}")
        if self.user is not None and (not 0 < len(self.user) <= USER_BYTES_MAX or _SEPARATOR in self.user):
            raise ValueError(f"a user must be 1 to {USER_BYTES_MAX} characters without U+001F")
        for scope in self.scopes:
            if not _SCOPE.match(scope):
                raise ValueError(f"a scope must match {SCOPE_PATTERN}: {scope!r}")
        for network in self.networks:
            ip_network(network)
        _check_quotas(self.quotas)

    @property
    def limits(self) -> str:
        """Of a version word; empty where the key has no limits of its own."""
        return limits_text(f"k:{self.id}", self.quotas, self.rate)


def _check_quotas(quotas: tuple[Quota, ...]) -> None:
    for meter, units, window_seconds in quotas:
        if not is_meter(meter):
            raise ValueError(f"a meter's name must match {METER_PATTERN}: {meter!r}")
        if not 0 <= units <= UNITS_MAX:
            raise ValueError(f"units must be a whole number from 0 to {UNITS_MAX}: {units}")
        if not 0 <= window_seconds <= WINDOW_SECONDS_MAX:
            raise ValueError(f"a window must be 0 to {WINDOW_SECONDS_MAX} seconds: {window_seconds}")
    if len({(q.meter, q.window_seconds) for q in quotas}) != len(quotas):
        raise ValueError("a meter has two quotas for one window")


# A record: `_RECORD`, the expiry where there is one, then the texts that are not what is usual, each after a byte that
# says which it is. A plain key has 14 bytes.
_RECORD: Final = Struct("<BB12s")
_RECORD_EXPIRING: Final = Struct("<BB12sQ")
_EXPIRING, _STATE_BITS = 0x80, 0x0F
_FORM = 1
_SEPARATOR = "\x1f"


class RecordMalformed(ValueError):
    """What is published under a key's digest is no record that this version can read."""


def pack_record(record: KeyRecord) -> bytes:
    key_id = record.id.encode("ascii")
    if record.expires_s is None:
        head = _RECORD.pack(_FORM, record.state, key_id)
    else:
        head = _RECORD_EXPIRING.pack(_FORM, record.state | _EXPIRING, key_id, record.expires_s)
    rate = record.rate
    texts = (
        "" if record.environment == ENVIRONMENT_DEFAULT else record.environment,
        record.user or "",
        " ".join(record.scopes),
        " ".join(record.networks),
        " ".join(f"{meter}:{units}:{seconds}" for meter, units, seconds in record.quotas),
        "" if rate is None else f"{rate.requests}:{rate.seconds!r}:{rate.burst}",
    )
    tail = _SEPARATOR.join(f"{letter}{text}" for letter, text in zip("eusnqr", texts, strict=True) if text)
    return head + tail.encode()


def unpack_record(data: bytes) -> KeyRecord:
    """Raises RecordMalformed."""
    try:
        form, bits, key_id = _RECORD.unpack_from(data)
        if form != _FORM:
            raise RecordMalformed(f"a key's record has the form {form}, which is newer than this version")
        at, expires_s = _RECORD.size, None
        if bits & _EXPIRING:
            *_, expires_s = _RECORD_EXPIRING.unpack_from(data)
            at = _RECORD_EXPIRING.size
        texts = {text[0]: text[1:] for text in data[at:].decode().split(_SEPARATOR) if text}
        quotas = (text.split(":") for text in texts.get("q", "").split())
        return KeyRecord(
            id=key_id.decode("ascii"),
            state=KeyState(bits & _STATE_BITS),
            expires_s=expires_s,
            environment=texts.get("e", ENVIRONMENT_DEFAULT),
            user=texts.get("u"),
            scopes=tuple(texts.get("s", "").split()),
            networks=tuple(texts.get("n", "").split()),
            quotas=tuple(Quota(meter, int(units), int(seconds)) for meter, units, seconds in quotas),
            rate=_rate(texts["r"]) if "r" in texts else None,
        )
    except RecordMalformed:
        raise
    except (ValueError, struct.error) as e:
        raise RecordMalformed(f"no record of a key: {e}") from e


def _rate(text: str) -> RateLimit:
    requests, seconds, burst = text.split(":")
    return RateLimit(int(requests), float(seconds), int(burst))


def digest16(key: str) -> bytes:
    """What a key is known by: the first 16 bytes of the SHA-256 of its whole text."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:DIGEST_BYTES]


def key_field(digest: bytes) -> bytes:
    """The field of a key's record in the organization's access hash."""
    if len(digest) != DIGEST_BYTES:
        raise ValueError(f"a key's digest has {DIGEST_BYTES} bytes: {len(digest)}")
    return b"k" + digest


# Marks


class MarkKind(StrEnum):
    TOKEN = "token"  # noqa: S105 - a kind, no secret
    """A claim `jti`."""
    SESSION = "session"
    """A claim `sid`."""
    USER = "user"
    SITE = "site"
    ORGANIZATION = "organization"


class Mark(NamedTuple):
    """What is revoked: tokens and keys that carry this id. It is in force until it is lifted."""

    kind: MarkKind
    id: str = ""
    """Empty for the organization."""

    @property
    def field(self) -> bytes:
        """In the organization's access hash."""
        mark_id = self.id.encode("utf-8", "surrogateescape")
        if len(mark_id) > MARK_ID_BYTES_MAX or mark_id.startswith(b"#"):
            mark_id = b"#" + hashlib.sha256(mark_id).hexdigest()[:32].encode()
        return f"r:{self.kind.value}:".encode() + mark_id


OF_ORGANIZATION: Final = Mark(MarkKind.ORGANIZATION)


def marks_of(
    token_id: str | None = None, session: str | None = None, user: str | None = None, site: str | None = None
) -> tuple[Mark, ...]:
    """The marks that would refuse who carries these ids."""
    ids = (
        (MarkKind.TOKEN, token_id),
        (MarkKind.SESSION, session),
        (MarkKind.USER, user),
        (MarkKind.SITE, site),
    )
    return OF_ORGANIZATION, *(Mark(kind, each) for kind, each in ids if each is not None)


def mark_value(until_s: int | None = None) -> bytes:
    """Refuses all that carries the id; with `until_s` only what was issued up to this second, or says no time."""
    return b"" if until_s is None else b"%d" % until_s


def refuses(value: bytes, issued_at: float | None) -> bool:
    """Whether a mark with this value refuses what was issued at that second."""
    return not value.isdigit() or issued_at is None or issued_at < int(value) + 1


def refusing(marks: Mapping[Mark, bytes], issued_at: float | None) -> Mark | None:
    """The first of these published marks that refuses what was issued at that second."""
    return next((mark for mark, value in marks.items() if refuses(value, issued_at)), None)


# What is published


@dataclass(frozen=True, slots=True)
class AccessChanges:
    """What a publication changes of the organization's access. With `since` these are the changes after that version;
    without it they are all of its access, and what else Redis holds is dropped."""

    since: int | None
    records: Mapping[bytes, KeyRecord] = field(default_factory=dict)
    """By the key's digest."""
    marks: Mapping[Mark, int | None] = field(default_factory=dict)
    """What is revoked: for good (None), or if it was issued up to this second."""
    dropped: frozenset[bytes] = frozenset()
    """Digests of keys that are gone. A key that was revoked may stay, so that its refusal says so."""
    lifted: frozenset[Mark] = frozenset()
    gone: frozenset[str] = frozenset()
    """Ids of keys whose counters are dropped, too."""

    def written(self) -> dict[bytes, bytes]:
        """Field of the access hash -> value."""
        records = {key_field(digest): pack_record(record) for digest, record in self.records.items()}
        return records | {mark.field: mark_value(until_s) for mark, until_s in self.marks.items()}

    def removed(self) -> list[bytes]:
        return [*map(key_field, self.dropped), *(mark.field for mark in self.lifted)]


# Version words


def version_word(version: int, limits: Iterable[str] = ()) -> str:
    """The word of a take that is charged only while this version of the organization is published. `limits`: those of
    the principal's own (`KeyRecord.limits`), which are checked in the same take."""
    return " ".join((str(version), *filter(None, limits)))


def limits_text(node: str, quotas: Iterable[Quota], rate: RateLimit | None) -> str:
    """The limits of one node, `k:<id>`: `<node> [@<interval us>,<burst us>] [<meter>=<window s>:<units>,… …]`."""
    words = [node]
    if rate is not None:
        words.append(f"@{rate.interval_us!r},{rate.interval_us * rate.burst!r}")
    by_meter: dict[str, list[str]] = {}
    for meter, units, window_seconds in quotas:
        by_meter.setdefault(meter, []).append(f"{window_seconds}:{units}")
    words += [f"{meter}={','.join(windows)}" for meter, windows in by_meter.items()]
    return " ".join(words) if len(words) > 1 else ""
