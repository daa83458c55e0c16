"""Names of things in Redis, and the alphabet of the identifiers that go into them.

An organization lives in one shard; all keys of a shard share a hash tag, so that one script touches one
Redis Cluster slot. The shard count is fixed at installation: `LAYOUT` holds it and both planes compare at start.
"""

import re
from binascii import crc32
from typing import NamedTuple

SHARDS_DEFAULT = 32
SHARDS_MAX = 100  # two digits in the tag, so that keys of one kind sort and look alike

# Blanks and the separators of a receipt (`: = ,`) would break an event, so identifiers must not contain them. `:` is
# allowed in organizations, whose ids have blanks around them.
ORG_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:@|-]{0,127}$"
METER_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
GRANT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"

_ORG = re.compile(ORG_PATTERN.replace("$", r"\Z"))
_METER = re.compile(METER_PATTERN.replace("$", r"\Z"))
_UNITS = re.compile(r"[0-9]{1,16}\Z")
_GRANT = re.compile(GRANT_PATTERN.replace("$", r"\Z"))

LAYOUT = "qg:shards"
"""String: the shard count this Redis was installed with."""

HYDRATE = "qg:hydrate"
"""List: organizations of which a gateway had a request and that Redis does not know (`Asked`); the control plane pops
them."""

CHANGED = "qg:changed"
"""Pub/sub channel: the organization whose published entitlement was (re)installed or confirmed."""

RECOVER = "qg:recover"
"""Pub/sub channel: Redis lost its memory. Each gateway sends the receipts of its takes (quota/recovery_message.py)."""

WORKERS = "qg:worker:"
"""Begins a channel of each worker that listens on RECOVER. Nothing is published there: who is subscribed, is there."""

RECEIPTS = "qg:receipts"
"""List: what the gateways send then, receipts with LF between."""

REFUSALS = "qg:refusals"
"""Stream: refused requests, as gateways keep them for those who ask why (quota/kept_refusals.py)."""

CHECK_TIMES = "qg:check-times"
"""Stream: how long takes took, as workers of gateways count it in a minute (quota/check_times.py)."""

ROUTES = "qg:routes"
"""Hash: what gateways tell of their routes and prices, by the digest of it (quota/routes.py)."""

UPSTREAM_FAULTS = "qg:upstream-faults"
"""Stream with expiry: targets of upstreams that workers of gateways leave out (quota/upstream_faults.py)."""

WRITTEN = "qg:written"
"""Hash: shard -> `<epoch> <milliseconds>`. All entries of the shard's stream before that time, by Redis' clock, are in
Postgres."""

VOUCH = "qg:vouch"
"""List: gateways that have started, or lost their connection, ask whether this Redis was the last to be vouched for.
`<name> <epoch>`: the name of the answer's key, and the highest epoch that they have seen, or those of all shards."""


VOUCH_IN_CLUSTER = "{qg:hydrate}:vouch"
"""The same on a Cluster, in the slot of HYDRATE: one command waits for both."""

RECEIPTS_ASKED = "{qg:receipts}:asked"
"""String with expiry, on a Cluster only, in the slot of RECEIPTS: there while a recovery has asked for receipts."""


PERMITS_SUFFIX = "/slots"  # no organization's name holds a `/`
ACCESS_SUFFIX = "/access"


class Asked(NamedTuple):
    """An entry of HYDRATE: `<organization>`, or `<organization> <meter>=<units>` where a region was short of units."""

    org: str
    meter: str | None = None
    units: int = 0
    """The cost of the request that was refused."""

    def __str__(self) -> str:
        return self.org if self.meter is None else f"{self.org} {self.meter}={self.units}"


def asked_of(text: str) -> Asked | None:
    """None for what is no entry of HYDRATE."""
    org, _, rest = text.partition(" ")
    if not is_org(org):
        return None
    if not rest:
        return Asked(org) if text == org else None
    meter, _, units = rest.partition("=")
    return Asked(org, meter, int(units)) if is_meter(meter) and _UNITS.match(units) else None


def is_org(text: str) -> bool:
    return _ORG.match(text) is not None


def is_meter(text: str) -> bool:
    return _METER.match(text) is not None


def is_grant(text: str) -> bool:
    return _GRANT.match(text) is not None


def shard_of(org: str, shards: int) -> int:
    return crc32(org.encode()) % shards


def tag(shard: int) -> str:
    return f"qg:{{q{shard:02d}}}"


def shard_in(key: str) -> int:
    """The shard that a key with its tag belongs to."""
    at = key.index("{q") + 2
    return int(key[at : at + 2])


def org_key(org: str, shards: int) -> str:
    """Hash: the published entitlement and the organization's counters (`lua/README.md` lists the fields)."""
    return f"{tag(shard_of(org, shards))}:org:{org}"


def events_key(shard: int) -> str:
    """Stream: usage events in the order of admission."""
    return f"{tag(shard)}:events"


def generation_key(shard: int) -> str:
    """String: the server and the epoch in which the shard's counters were vouched for (quota/generation.py).

    A flush removes it; a restart or failover leaves that of another server; a server that returns has that of an old
    epoch. In each case nothing is admitted before the control plane has rebuilt what was lost."""
    return f"{tag(shard)}:generation"


def written_key(shard: int) -> str:
    """String, on a Cluster in place of the shard's field of WRITTEN: it is where the shard is."""
    return f"{tag(shard)}:written"


def probe_key(shard: int) -> str:
    """String, on a Cluster: written by whoever asks whether the shard's server takes writes."""
    return f"{tag(shard)}:probe"


def answer_key(name: str) -> str:
    """String with expiry, for the gateway that asked: the epoch that was vouched for last, or those of all shards; `-`:
    not known yet, wait."""
    return f"qg:vouch:{name}"


def permits_key(org: str, shards: int) -> str:
    """Sorted set: requests under way of an organization whose number is limited, by the second that frees them.

    Named after the hash, of which `take` knows it."""
    return org_key(org, shards) + PERMITS_SUFFIX


def access_key(org: str, shards: int) -> str:
    """Hash: the organization's API keys, and marks of what is revoked (quota/access.py has the fields)."""
    return org_key(org, shards) + ACCESS_SUFFIX


def staged_access_key(org: str, shards: int, name: str) -> str:
    """Hash with expiry: becomes the access hash when it is published."""
    return f"{access_key(org, shards)}~{name}"


def shard_of_digest(digest: bytes, shards: int) -> int:
    """The shard of an API key's index entry: not that of its organization, which the entry is read to find."""
    return crc32(digest) % shards


def key_index_key(digest: bytes, shards: int) -> bytes:
    """String: the organization of the API key with this digest. It never changes its meaning."""
    return f"{tag(shard_of_digest(digest, shards))}:key:".encode() + digest


def key_index_marker(shard: int) -> str:
    """String: the generation of the shard in which its index of API keys was complete."""
    return f"{tag(shard)}:keys"


def idempotency_key(org: str, shards: int, name: str) -> str:
    """String with expiry: the requests under way with an idempotency key, and the receipt of the one charged."""
    return once_key(org, shards, f"idem:{name}")


def settled_key(org: str, shards: int, request_id: str) -> str:
    """String with expiry: the receipt of this request was settled."""
    return once_key(org, shards, f"settle:{request_id}")


def replayed_key(org: str, shards: int, request_id: str) -> str:
    """String with expiry: the receipt of a replayed request; empty: it was not served, and is never charged."""
    return once_key(org, shards, f"replay:{request_id}")


def once_key(org: str, shards: int, name: str) -> str:
    """String with expiry: marks that `name` was done for this organization, and must not be done again."""
    return f"{tag(shard_of(org, shards))}:once:{org}:{name}"


def guesses_key(kind: str, name: str) -> str:
    """String with expiry: the moment, in ms, at which this bucket of wrong tries is empty."""
    return f"qg:guesses:{kind}:{name}"
