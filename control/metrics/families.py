"""The metrics of the control plane, as they are declared."""

from typing import Final

from common.exposition import Family
from common.histogram import BOUNDS, written


def _counter(name: str, about: str, *labels: str) -> Family:
    return Family(f"quotagate_control_{name}", "counter", about, labels)


def _gauge(name: str, about: str, *labels: str) -> Family:
    return Family(f"quotagate_control_{name}", "gauge", about, labels)


def _histogram(name: str, about: str, *labels: str) -> Family:
    return Family(f"quotagate_control_{name}", "histogram", about, labels, tuple(map(written, BOUNDS)))


# The writer and the counters
LAG: Final = _gauge("lag_seconds", "Age of the oldest usage event that is not in Postgres.")
WRITER_SHARDS: Final = _gauge("writer_shards", "Shards that this process writes.")
WRITERS: Final = _gauge("writers", "Processes that share the shards, by this one's last look.")
RECONCILE_ROUNDS: Final = _counter("reconcile_rounds_total", "Looks at all organizations.")
RECONCILE_ENDED: Final = _gauge(
    "reconcile_ended_timestamp_seconds", "When the last of them ended, seconds since 1970; 0 before the first."
)
RECONCILE_BEHIND: Final = _gauge("reconcile_behind", "Organizations left out by it, the writer being behind.")
DRIFTED: Final = _gauge("drift_organizations", "Organizations that it found drifted.")
DRIFT_ABOVE: Final = _gauge("drift_units_above", "Units that Redis counted and no event says.")
DRIFT_BELOW: Final = _gauge("drift_units_below", "Units that events say and Redis did not count.")
DRIFT_RATIO: Final = _gauge("drift_ratio_max", "The largest drift of a counter, of its events.")
DRIFT_REPAIRED: Final = _counter("drift_repaired_total", "Organizations that were repaired.")
EPOCH: Final = _gauge("ledger_epoch", "How often a Redis was vouched for, as far as is known here.")
UNITS_LOST: Final = _counter("units_lost_total", "Units that Redis lost and nobody had written or remembers, at most.")

USAGE_DAYS: Final = _gauge("usage_days", "Days of usage events in the database, by an hourly look.")
USAGE_DAYS_OVERDUE: Final = _gauge("usage_days_overdue", "Those of them that retention should have moved into files.")
USAGE_BYTES: Final = _gauge("usage_bytes", "What they take in the database, with their indexes.")

# The journal
UNSEALED: Final = _gauge("journal_unsealed_entries", "Entries of the audit journal that wait for their seal.")
UNSEALED_SECONDS: Final = _gauge("journal_unsealed_seconds", "How long the oldest of them has waited.")
JOURNAL_HEAD: Final = _gauge("journal_head_seq", "The last seal; it never goes back.")

# Stripe, and messages
STRIPE_WAITING: Final = _gauge("stripe_events_waiting", "Events of Stripe that are not dealt with.")
STRIPE_OLDEST: Final = _gauge("stripe_events_oldest_seconds", "Age of the oldest of them.")
STRIPE_DEAD: Final = _gauge("stripe_events_dead", "Events of Stripe that were given up.")
OVERAGE_UNSENT: Final = _gauge("overage_unsent_units", "Overage that is frozen, and not at Stripe yet.")
OVERAGE_OLDEST: Final = _gauge("overage_oldest_seconds", "Age of the oldest of it that was not given up.")
ENFORCEMENT: Final = _histogram(
    "enforcement_seconds", "From the arrival of an event of Stripe to the publication of what it changed."
)
INCIDENTS: Final = _gauge("incidents_open", "Open incidents, counted up to 10,000 of each kind.", "kind")
MESSAGES: Final = _gauge(
    "messages", "Messages that wait (pending, waiting) or were given up, counted up to 10,000 of each.", "queue"
)
MESSAGES_OLDEST: Final = _gauge(
    "messages_oldest_timestamp_seconds", "Since when the oldest of them is there, seconds since 1970.", "queue"
)

# The control API
REQUESTS: Final = _histogram("request_seconds", "How long requests took; event streams are left out.", "group")
RESPONSES: Final = _counter("responses_total", "Answers by status; event streams are left out.", "group", "class")

TELEMETRY_DROPPED: Final = _counter(
    "telemetry_dropped_total",
    "What no collector got: spans (traces), lines of the log (logs), reports (metrics).",
    "signal",
)

# What it needs
CERTIFICATES: Final = _gauge(
    "certificate_expires_timestamp_seconds",
    "When a certificate that the settings name ends, seconds since 1970; 0 where its file cannot be read. Of a file of "
    "authorities, the last one.",
    "file",
)
STORE_UP: Final = _gauge("store_up", "Whether the store answered when it was asked for these metrics.", "store")
REPLICA_LAG: Final = _gauge("replica_lag_seconds", "How old what the replica of Postgres has is, at most.")
REPLICA_NEAR: Final = _gauge("replica_near", "1 where the replica is read; 0 while it is away or too far behind.")
REPLICA_READS: Final = _counter("replica_reads_total", "Reads that may be a little old, by who had them.", "store")
SERVICE_ALIVE: Final = _gauge("service_alive", "Whether a background service runs.", "service")
SERVICE_RESTARTS: Final = _counter("service_restarts_total", "How often a background service was restarted.", "service")
CLOCK_SKEW: Final = _gauge(
    "clock_skew_seconds", "How far a clock is ahead of Redis'; of a Cluster's servers, of most.", "clock"
)
SIGNING_KEY_DUE: Final = _gauge(
    "signing_key_due_timestamp_seconds", "When the newest signing key has to be replaced, seconds since 1970."
)
SIGNING_KEYS_UNREADABLE: Final = _gauge("signing_keys_unreadable", "Signing keys in use that no master key opens.")
REDIS_MEMORY: Final = _gauge("redis_memory_bytes", "What Redis uses of its memory; of a Cluster, the fullest primary.")
REDIS_MEMORY_MAX: Final = _gauge(
    "redis_memory_max_bytes", "What it may use: maxmemory, or what its machine has where that is less or not set."
)
REDIS_EVICTS: Final = _gauge("redis_evicts", "1 where Redis throws data away when its memory is full.")
REDIS_EVICTED: Final = _counter("redis_evicted_keys_total", "Keys that Redis has thrown away.")
REDIS_APPEND_ONLY: Final = _gauge("redis_append_only", "1 where Redis keeps an append-only file.")
REDIS_WRITES_FAIL: Final = _gauge("redis_writes_fail", "1 where the last write of Redis to its disk failed.")
REDIS_REPLICAS: Final = _gauge("redis_replicas", "Replicas that are connected; of a Cluster, the fewest of a primary.")
REDIS_REPLICA_LAG: Final = _gauge(
    "redis_replica_lag_bytes", "By how much the replica that is furthest behind is behind."
)

# One of several regions
REGION_ORGANIZATIONS: Final = _gauge("region_organizations", "Organizations in use in this region, by this process.")
REGION_BEHIND: Final = _gauge("region_behind", "Those of them that were due in the last turn and had to wait.")
REGION_LOOKS: Final = _counter("region_looks_total", "How often what this region holds of one was looked at.")
REGION_LEASES: Final = _counter("region_leases_total", "Leases that the home gave and this region enforces.")
REGION_RETURNS: Final = _counter("region_returns_total", "How often this region gave units up that it did not need.")
REGION_SHORT: Final = _counter("region_short_total", "Leases with less than the region asked for.")
REGION_SET_BACK: Final = _counter("region_clock_set_back_total", "Leases that were ended since Redis' clock went back.")
REGION_ASKED: Final = _histogram("region_asked_seconds", "How long requests waited for a lease, or for units.")

FAMILIES: Final = (
    LAG,
    WRITER_SHARDS,
    WRITERS,
    RECONCILE_ROUNDS,
    RECONCILE_ENDED,
    RECONCILE_BEHIND,
    DRIFTED,
    DRIFT_ABOVE,
    DRIFT_BELOW,
    DRIFT_RATIO,
    DRIFT_REPAIRED,
    EPOCH,
    UNITS_LOST,
    USAGE_DAYS,
    USAGE_DAYS_OVERDUE,
    USAGE_BYTES,
    UNSEALED,
    UNSEALED_SECONDS,
    JOURNAL_HEAD,
    STRIPE_WAITING,
    STRIPE_OLDEST,
    STRIPE_DEAD,
    OVERAGE_UNSENT,
    OVERAGE_OLDEST,
    ENFORCEMENT,
    INCIDENTS,
    MESSAGES,
    MESSAGES_OLDEST,
    REQUESTS,
    RESPONSES,
    CERTIFICATES,
    TELEMETRY_DROPPED,
    STORE_UP,
    REGION_ORGANIZATIONS,
    REGION_BEHIND,
    REGION_LOOKS,
    REGION_LEASES,
    REGION_RETURNS,
    REGION_SHORT,
    REGION_SET_BACK,
    REGION_ASKED,
    REPLICA_LAG,
    REPLICA_NEAR,
    REPLICA_READS,
    SERVICE_ALIVE,
    SERVICE_RESTARTS,
    CLOCK_SKEW,
    SIGNING_KEY_DUE,
    SIGNING_KEYS_UNREADABLE,
    REDIS_MEMORY,
    REDIS_MEMORY_MAX,
    REDIS_EVICTS,
    REDIS_EVICTED,
    REDIS_APPEND_ONLY,
    REDIS_WRITES_FAIL,
    REDIS_REPLICAS,
    REDIS_REPLICA_LAG,
)
"""All of them."""
