"""The servers of a Redis Cluster: whether they agree, serve all slots, and keep what is charged."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from quotagate.diagnosis.finding import Finding, Level, judged
from quotagate.diagnosis.redis_server import judge_redis

if TYPE_CHECKING:
    from common.redis_cluster.client import ClusterClient
    from common.redis_cluster.topology import Address, View


async def of_cluster(client: "ClusterClient") -> list[Finding]:
    """Raises RedisError, UnsupportedServer."""
    topology = await client.ask_topology()
    views = await client.views()
    servers = list(dict.fromkeys((*topology.primaries, *topology.replicas)))
    found = await asyncio.gather(*(_of_server(client.at(address)) for address in servers))
    by_address = {str(address): each for address, each in zip(servers, found, strict=True) if isinstance(each, list)}
    away = {str(address): each for address, each in zip(servers, found, strict=True) if isinstance(each, str)}
    return [*judge_servers(len(servers), away), *judge_views(views), *together(by_address)]


async def _of_server(server: Any) -> list[Finding] | str:
    """Or why it does not answer."""
    from redis.exceptions import RedisError

    from common import redis_keeping

    try:
        return list(judge_redis(await server.info(), await redis_keeping.save_points(server)))
    except (RedisError, OSError) as e:
        return str(e) or type(e).__name__


def judge_servers(count: int, away: Mapping[str, str]) -> Iterator[Finding]:
    """`away`: those that do not answer, and why."""
    reasons = "; ".join(f"{address}: {reason.removeprefix(f'{address} ')}" for address, reason in away.items())
    detail = f"{count - len(away)} of {count} answer" + (f" ({reasons})" if away else "")
    yield judged(not away, "redis servers", detail)


def judge_views(views: "Mapping[Address, View]") -> Iterator[Finding]:
    from common.redis_cluster.topology import disagreement, unserved

    fault = unserved(views)
    yield judged(fault is None, "redis slots", fault or "all are served")
    differ = disagreement(views)
    yield judged(differ is None, "redis views", differ or "all servers name the same primaries")


def together(by_address: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """Of several servers: what is right at all of them is said once, and what is not, with the server's address."""
    faults = [
        replace(each, detail=f"{address}: {each.detail}")
        for address, findings in by_address.items()
        for each in findings
        if each.level is not Level.GOOD
    ]
    faulty = {each.what for each in faults}
    good = {each.what: each for findings in by_address.values() for each in findings if each.what not in faulty}
    return [*good.values(), *faults]
