"""What Redis says of its memory, its disk and its replicas. Pure."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

from prometheus_client.core import Metric

from control.metrics import families as f

_WRITES: Final = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")


def metrics_of(*infos: Mapping[str, Any]) -> Iterator[Metric]:
    """`infos`: the reply of INFO as redis-py reads it, of each primary of a Cluster. Of several the worst is told. What
    a server does not tell of is left out."""
    fullest = max(infos, key=_fullness)
    if "used_memory" in fullest:
        yield f.REDIS_MEMORY.one(int(fullest["used_memory"]))
    if limits := _limits(fullest):
        yield f.REDIS_MEMORY_MAX.one(min(limits))
    if policies := [info["maxmemory_policy"] for info in infos if "maxmemory_policy" in info]:
        yield f.REDIS_EVICTS.one(any(policy != "noeviction" for policy in policies))
    if evicted := [int(info["evicted_keys"]) for info in infos if "evicted_keys" in info]:
        yield f.REDIS_EVICTED.one(sum(evicted))
    if appends := [info for info in infos if "aof_enabled" in info]:
        yield f.REDIS_APPEND_ONLY.one(min(int(info["aof_enabled"]) for info in appends))
        yield f.REDIS_WRITES_FAIL.one(any(info.get(name, "ok") != "ok" for info in appends for name in _WRITES))
    if told := [info for info in infos if "master_repl_offset" in info]:
        behind = [[int(info["master_repl_offset"]) - int(each["offset"]) for each in _replicas(info)] for info in told]
        yield f.REDIS_REPLICAS.one(min(map(len, behind)))
        yield f.REDIS_REPLICA_LAG.one(max([0, *chain.from_iterable(behind)]))


def _limits(info: Mapping[str, Any]) -> list[int]:
    return [int(info[name]) for name in ("maxmemory", "total_system_memory") if int(info.get(name, 0))]


def _fullness(info: Mapping[str, Any]) -> float:
    return int(info.get("used_memory", 0)) / min(_limits(info), default=1)


def _replicas(info: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Those that are in step. One that is being loaded for the first time says no offset yet."""
    for number in range(int(info.get("connected_slaves", 0))):
        replica = info.get(f"slave{number}")
        if isinstance(replica, dict) and replica.get("state") == "online":
            yield replica
