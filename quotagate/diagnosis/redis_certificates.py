"""The certificates that servers of Redis and Sentinels show: of each one that either plane may come to."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from quotagate.diagnosis.certificates import judge_end, shown_until
from quotagate.diagnosis.finding import Finding, judged

WHAT: Final = "redis certificate"


async def of_all(url: str, client: Any) -> list[Finding]:
    """`client`: one of this URL. When the first of them ends, and which were not shown; nothing without TLS."""
    from redis import RedisError

    try:
        plain = await _plain_urls(url, client)
    except RedisError as e:
        return [judged(False, WHAT, f"which servers there are is not told: {e}")]
    shown = dict(zip(plain, await asyncio.gather(*map(_shown, plain.values())), strict=True))
    faults = [judged(False, WHAT, f"{each}: {found}") for each, found in shown.items() if isinstance(found, str)]
    ends = [(found, each) for each, found in shown.items() if isinstance(found, int | float)]
    if not ends:
        return faults
    first, address = min(ends)
    good, detail = judge_end(first, time.time())
    whose = "the one that it shows" if len(plain) == 1 else f"the one that {address} shows"
    return [judged(good, WHAT, f"{whose} {detail}"), *faults]


async def _plain_urls(url: str, client: Any) -> Mapping[str, str]:
    """By address. Raises RedisError."""
    from common import redis_url
    from common.redis_cluster import address as cluster_address
    from common.redis_cluster.topology import Address
    from common.redis_sentinel import Sentinels
    from common.redis_sentinel_url import is_sentinel, taken_apart

    if cluster_address.is_cluster(url):
        of, topology = cluster_address.taken_apart(url).of, await client.ask_topology()
        return {str(each): of(each) for each in (*topology.primaries, *topology.replicas)}
    if not is_sentinel(url):
        parts = redis_url.parts(url)
        return {str(Address(parts.get("host", "localhost"), parts.get("port", 6379))): url}
    apart, sentinels = taken_apart(url), Sentinels(url)
    try:
        primary = Address(*await sentinels.primary())
    finally:
        await sentinels.aclose()
    info = await client.info("replication")
    following = [value for name, value in info.items() if name.startswith("slave") and isinstance(value, dict)]
    servers = [primary, *(Address(str(each["ip"]), int(each["port"])) for each in following)]
    return {str(each): apart.server(str(each)) for each in servers} | {
        f"the Sentinel {plain.rpartition('://')[2].partition('?')[0]}": plain for plain in apart.sentinels
    }


async def _shown(plain: str) -> float | str | None:
    """When it ends, Unix time; or why it is not shown; None where there is none to look at."""
    from common import redis_url

    certificates, parts = redis_url.certificates(plain), redis_url.parts(plain)
    if certificates is None:
        return None
    try:
        host, port = parts.get("host", "localhost"), parts.get("port", 6379)
        return await shown_until(host, port, await certificates.current())
    except OSError as e:  # TimeoutError is one
        return f"a connection failed: {str(e) or type(e).__name__}"
