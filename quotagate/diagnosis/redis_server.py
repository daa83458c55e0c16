"""What INFO and the settings of a Redis or a Valkey say about it."""

from collections.abc import Iterator
from typing import Any, Final

from quotagate.diagnosis.finding import Finding, judged

VERSION_MIN: Final = (7, 0)


def judge_redis(info: dict[str, Any], save: str | None) -> Iterator[Finding]:
    """What INFO says about a Redis or a Valkey, and its setting `save`; None: it does not tell that."""
    from common.redis_server import evicting, forgetting

    version = str(info.get("valkey_version") or info["redis_version"])
    new_enough = tuple(int(part) for part in version.split(".")[:2]) >= VERSION_MIN
    oldest = ".".join(map(str, VERSION_MIN))
    yield judged(new_enough, "redis version", version if new_enough else f"{version} is too old: {oldest} is needed")
    appends = info["aof_enabled"] == 1
    snapshots = "no append-only file: a restart loses what was charged since the last snapshot. Set appendonly yes"
    yield judged(appends, "redis persistence", "append-only file" if appends else forgetting(info, save) or snapshots)
    evicts = evicting(info)
    yield judged(evicts is None, "redis eviction", evicts or info["maxmemory_policy"])
