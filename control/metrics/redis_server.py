"""What Redis says of its memory, its disk and its replicas. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import Metric

from control.metrics import families as f

_WRITES: Final = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")


def metrics_of(info: Mapping[str, Any]) -> Iterator[Metric]:
    """`info`: the reply of INFO as redis-py reads it. What a server does not tell of is left out."""
    limits = [int(info[name]) for name in ("maxmemory", "total_system_memory") if int(info.get(name, 0))]
    if "used_memory" in info:
        yield f.REDIS_MEMORY.one(int(info["used_memory"]))
    if limits:
        yield f.REDIS_MEMORY_MAX.one(min(limits))
    if "maxmemory_policy" in info:
        yield f.REDIS_EVICTS.one(info["maxmemory_policy"] != "noeviction")
    if "evicted_keys" in info:
        yield f.REDIS_EVICTED.one(int(info["evicted_keys"]))
    if "aof_enabled" in info:
        yield f.REDIS_APPEND_ONLY.one(int(info["aof_enabled"]))
        yield f.REDIS_WRITES_FAIL.one(any(info.get(name, "ok") != "ok" for name in _WRITES))
    if "master_repl_offset" in info:
        behind = [int(info["master_repl_offset"]) - int(each["offset"]) for each in _replicas(info)]
        yield f.REDIS_REPLICAS.one(len(behind))
        yield f.REDIS_REPLICA_LAG.one(max([0, *behind]))


def _replicas(info: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Those that are in step. One that is being loaded for the first time says no offset yet."""
    for number in range(int(info.get("connected_slaves", 0))):
        replica = info.get(f"slave{number}")
        if isinstance(replica, dict) and replica.get("state") == "online":
            yield replica
