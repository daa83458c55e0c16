"""The Sentinels of a Redis, and the servers that they watch: whether a failover would succeed, and lose nothing."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quotagate.diagnosis.finding import Finding, judged, noted

TIMEOUT_SECONDS: Final = 2.0
_TIMES: Final[dict[str, Any]] = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
SENTINELS_MIN: Final = 3  # of two, the one that is left when the other's machine is gone is no majority


@dataclass(frozen=True, slots=True)
class Watcher:
    """What one Sentinel says of the primary and its replicas; `fault` in place of both."""

    address: str
    about: dict[str, str]
    replicas: Sequence[dict[str, str]]
    fault: str | None = None

    @property
    def primary(self) -> str:
        return _address(self.about)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is not the primary, by its own words."""

    address: str
    info: dict[str, Any] | None
    """None: it does not answer."""
    save: str | None
    fault: str | None = None
    """Why it does not."""


async def of_sentinels(url: str, primary: Any) -> list[Finding]:
    """`primary`: a client of it."""
    from redis.exceptions import RedisError

    from common.redis_sentinel_url import taken_apart

    apart = taken_apart(url)
    watchers = await asyncio.gather(*(_watcher(plain, apart.name) for plain in apart.sentinels))
    known = {_address(each) for watcher in watchers for each in watcher.replicas}
    servers = await asyncio.gather(*(_server(apart.server(address), address) for address in sorted(known)))
    try:
        bound = await primary.config_get("min-replicas-to-write")
    except RedisError:  # as at most who host it
        bound = {}
    return [*judge_watchers(watchers), *judge_servers(servers), *judge_bound(bound)]


async def _watcher(plain: str, name: str) -> Watcher:
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    from common import redis_url

    parts = redis_url.parts(plain)
    address = f"{parts['host']}:{parts['port']}"
    async with Redis.from_url(plain, decode_responses=True, **_TIMES) as client:
        try:
            about = _map(await client.execute_command("SENTINEL", "MASTER", name))
            replicas = [_map(each) for each in await client.execute_command("SENTINEL", "REPLICAS", name)]
        except (RedisError, OSError) as e:
            return Watcher(address, {}, (), str(e) or type(e).__name__)
    return Watcher(address, about, replicas)


async def _server(plain: str, address: str) -> Server:
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    from common import redis_keeping

    async with Redis.from_url(plain, decode_responses=True, **_TIMES) as client:
        try:
            return Server(address, await client.info(), await redis_keeping.save_points(client))
        except (RedisError, OSError) as e:
            return Server(address, None, None, str(e) or type(e).__name__)


def _address(server: Mapping[str, str]) -> str:
    """host:port, as in a URL: an IPv6 address in brackets."""
    from common.redis_cluster.topology import Address

    return str(Address(server["ip"], int(server["port"])))


def _map(reply: Any) -> dict[str, str]:
    """redis-py has it as a list or as a dictionary."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def judge_watchers(watchers: Sequence[Watcher]) -> Iterator[Finding]:
    there = [each for each in watchers if each.fault is None]
    away = "; ".join(f"{each.address}: {each.fault}" for each in watchers if each.fault is not None)
    detail = f"{len(there)} of {len(watchers)} answer" + (f" ({away})" if away else "")
    yield judged(not away, "sentinels", detail)
    enough = len(watchers) >= SENTINELS_MIN
    yield noted(enough, "sentinels named", f"{len(watchers)}{'' if enough else ': three outlive the loss of one'}")
    if not there:
        return
    primaries = sorted({each.primary for each in there})
    yield judged(len(primaries) == 1, "sentinels agree", f"the primary is {' or '.join(primaries)}")
    counts = sorted({int(each.about["num-other-sentinels"]) + 1 for each in there})
    same = counts == [len(watchers)]
    count = " or ".join(map(str, counts))
    detail = f"they know {count} Sentinels" + ("" if same else f", and the settings name {len(watchers)}: name all")
    yield judged(same, "sentinels known", detail)
    quorums = sorted({int(each.about["quorum"]) for each in there})
    detail = " or ".join(map(str, quorums))
    if quorums[-1] > len(watchers):
        yield judged(False, "sentinels quorum", f"{detail} of {len(watchers)}: no failover can begin")
        return
    if len(quorums) > 1:
        yield judged(
            False, "sentinels quorum", f"{detail}: they disagree; set one by `SENTINEL SET NAME quorum N` at all"
        )
        return
    alone = ": one that does not reach the primary begins a failover" if enough and quorums[0] == 1 else ""
    yield noted(not alone, "sentinels quorum", detail + alone)


def judge_servers(servers: Sequence[Server]) -> Iterator[Finding]:
    """Those that could take the primary's place."""
    follow = [each.info for each in servers if each.info is not None and each.info["role"] == "slave"]
    hear = sum(info["master_link_status"] == "up" for info in follow)
    detail = f"{hear} of {len(servers)} hear the primary" if servers else "there are none: no failover can succeed"
    yield judged(0 < hear == len(servers), "redis replicas", detail)
    for each in servers:
        if each.info is not None:
            yield from _judge_server(each.address, each.info, each.save)
        elif each.fault is not None:
            yield judged(False, f"redis {each.address}", f"could be promoted, and does not answer: {each.fault}")


def _judge_server(address: str, info: dict[str, Any], save: str | None) -> Iterator[Finding]:
    from common.redis_server import evicting, forgetting

    if info["role"] != "slave":
        fault = "it is a primary, too: there are two. The Sentinels make it a replica, if they reach it"
        yield judged(False, f"redis {address}", fault)
    for fault in filter(None, (evicting(info), forgetting(info, save))):
        yield judged(False, f"redis {address}", f"could be promoted, and {fault}")


def judge_bound(config: dict[str, str]) -> Iterator[Finding]:
    """`config`: what CONFIG GET min-replicas-to-write answers; empty: it is not told."""
    if "min-replicas-to-write" not in config:
        return
    good = int(config["min-replicas-to-write"]) > 0
    unbounded = "0: a primary that was cut off goes on taking requests of gateways that were cut off with it. Set 1"
    yield noted(good, "redis min-replicas", config["min-replicas-to-write"] if good else unbounded)
