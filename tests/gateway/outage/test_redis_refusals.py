"""Redis answers, and cannot take: each word for that has a course, `/-/ready` tells it, and it ends by itself."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from common import redis_server
from common.redis_server import Course
from tests.gateway.outage.decisions import refuses
from tests.gateway.outage.readiness import PATIENCE_SECONDS, TIMES, ready, until_ready, until_served
from tests.gateway.rig import Organization, Peer, StartGateway, Until, Upstream
from tests.gateway.store import Store


@pytest.fixture
def valkey_settings() -> dict[str, str]:
    return {"dbfilename": "dump", "save": "86400 1000000"}


async def save(redis: Redis, *, fails: bool) -> None:
    """A snapshot, which fails or not."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await redis.info("persistence"))["rdb_last_bgsave_status"] != ("err" if fails else "ok"):
            try:
                await redis.bgsave()
            except RedisError:  # one is under way
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.02)


async def fill_disk(redis: Redis, store: Store) -> None:
    (store.directory / "dump" / "in the way").mkdir(parents=True)  # of the file that is to have that name
    await save(redis, fails=True)


async def free_disk(redis: Redis, store: Store) -> None:
    (store.directory / "dump" / "in the way").rmdir()
    (store.directory / "dump").rmdir()
    await save(redis, fails=False)


async def run(redis: Redis, *words: str) -> None:
    await redis.execute_command(*words)


FAULTS: dict[str, tuple[Any, Any]] = {
    "MISCONF": (fill_disk, free_disk),
    "OOM": (
        lambda redis, _: run(redis, "CONFIG", "SET", "maxmemory", "1"),
        lambda redis, _: run(redis, "CONFIG", "SET", "maxmemory", "0"),
    ),
    "NOREPLICAS": (
        lambda redis, _: run(redis, "CONFIG", "SET", "min-replicas-to-write", "1"),
        lambda redis, _: run(redis, "CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
    "READONLY": (
        lambda redis, _: run(redis, "REPLICAOF", "127.0.0.1", "1"),
        lambda redis, _: run(redis, "REPLICAOF", "NO", "ONE"),
    ),
    "NOPERM": (
        lambda redis, _: run(redis, "ACL", "SETUSER", "default", "-evalsha"),
        lambda redis, _: run(redis, "ACL", "SETUSER", "default", "+evalsha"),
    ),
}
TOLD = {
    "MISCONF": "redis cannot write to its disk",
    "OOM": "redis has no memory left",
    "NOREPLICAS": "redis has fewer replicas than it must have",
    "READONLY": "redis is a replica",
    "NOPERM": "redis does not let the gateway in",
}


@pytest.mark.parametrize("word", FAULTS)
async def test_a_redis_that_refuses_takes_makes_the_gateway_unready_and_both_end_by_themselves(
    start: StartGateway, acme: Organization, store: Store, running: Redis, upstream: Upstream, tmp_path: Path, word: str
) -> None:
    await acme.publish(1000)
    routes = [
        {"path": "/", "upstream": "api"},
        {"path": "/on", "upstream": "api", "degraded": "allow"},
    ]
    gateway = await start(redis={"url": store.url, **TIMES}, routes=routes, degraded={"journal": tmp_path / "journal"})
    assert (await gateway.get("/on", acme)).status == 200
    assert await ready(gateway) == (200, [])
    fault, cure = FAULTS[word]
    await fault(running, store)
    for _ in range(5):
        assert (await gateway.get("/", acme)).status == 503
        assert await ready(gateway) == (503, [TOLD[word]])
        assert (await gateway.get("/on", acme)).status == 200
    assert not [entry for entry in gateway.logs if entry["event"] == "take failed"]
    assert not gateway.worker.settlements.open
    await cure(running, store)
    await until_served(gateway, acme)
    await until_ready(gateway)
    await acme.comes_to(len(upstream.requests))
    assert len(upstream.requests) == 7


async def test_a_gateway_without_traffic_is_not_ready_on_a_redis_that_would_refuse(
    start: StartGateway, acme: Organization, running: Redis, store: Store, intervals: dict[str, Any]
) -> None:
    intervals["link_look_seconds"] = 0
    await acme.publish(1000)
    gateway = await start(redis={"url": store.url, **TIMES})
    assert await ready(gateway) == (200, [])
    await fill_disk(running, store)
    assert await ready(gateway) == (503, ["redis cannot write to its disk"])
    await free_disk(running, store)
    await until_ready(gateway)


async def test_a_gateway_is_not_ready_while_redis_loads_its_data_on_open_connections(
    start: StartGateway, acme: Organization, store: Store
) -> None:
    await acme.publish(1000)
    gateway = await start(redis={"url": store.url, **TIMES})
    assert (await gateway.get("/", acme)).status == 200
    async with store.loading():
        assert (await gateway.get("/", acme)).status == 503
        assert await ready(gateway) == (503, ["redis loads its data"])
    await until_served(gateway, acme)
    await until_ready(gateway)


async def test_a_gateway_is_not_ready_while_redis_is_busy_with_a_script(
    start: StartGateway, acme: Organization, store: Store, running: Redis
) -> None:
    await acme.publish(1000)
    await running.config_set("busy-reply-threshold", 20)
    gateway = await start(redis={"url": store.url})
    assert (await gateway.get("/", acme)).status == 200
    async with Redis.from_url(store.url) as other:
        busy = asyncio.ensure_future(other.eval("while true do end", 0))
        while await refuses(running) != "BUSY":
            pass
        assert (await gateway.get("/", acme)).status == 503
        assert await ready(gateway) == (503, ["redis is busy with a script"])
        await running.script_kill()
        with pytest.raises(RedisError, match="killed"):
            await busy
    await until_served(gateway, acme)
    await until_ready(gateway)


async def test_a_password_that_was_changed_is_told_and_the_gateway_serves_when_it_fits_again(
    start: StartGateway, acme: Organization, store: Store, running: Redis
) -> None:
    await acme.publish(1000)
    await running.execute_command("ACL", "SETUSER", "gate", "on", ">old", "~*", "&*", "+@all")
    gateway = await start(redis={"url": f"redis://gate:old@127.0.0.1:{store.port}/0", **TIMES})
    assert (await gateway.get("/", acme)).status == 200
    await running.execute_command("ACL", "SETUSER", "gate", "resetpass", ">new")
    await running.execute_command("CLIENT", "KILL", "USER", "gate")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await ready(gateway) != (503, ["redis does not let the gateway in"]):  # noqa: ASYNC110 - it calls nobody back
            await asyncio.sleep(0.01)
    assert (await gateway.get("/", acme)).status == 503
    await running.execute_command("ACL", "SETUSER", "gate", ">old")
    await until_served(gateway, acme)


async def test_a_correction_that_was_refused_is_made_when_redis_takes_again_and_needs_no_request_for_that(
    start: StartGateway, acme: Organization, store: Store, running: Redis, upstream: Upstream, until: Until
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await run(running, "CONFIG", "SET", "maxmemory", "1")

    upstream.serve = serve
    await acme.publish(100)
    gateway = await start(redis={"url": store.url, **TIMES})
    assert (await gateway.get("/", acme)).status == 502
    await until(lambda: gateway.worker.link.fault == TOLD["OOM"])
    assert gateway.worker.settlements.open == 1
    await run(running, "CONFIG", "SET", "maxmemory", "0")
    assert await acme.settled("ts")
    await until_ready(gateway)


async def test_one_organization_whose_key_is_of_another_type_is_no_fault_of_redis(
    start: StartGateway, acme: Organization, store: Store, running: Redis
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url, **TIMES})
    gateway.expected_errors |= {"take failed"}
    hash_key = (await running.keys("qg:*:org:acme"))[0]
    await running.rename(hash_key, "aside")
    await running.set(hash_key, "text")
    assert (await gateway.get("/", acme)).status == 503
    assert await ready(gateway) == (200, [])
    await running.rename("aside", hash_key)
    await until_served(gateway, acme)


@pytest.mark.parametrize(
    ("error", "course", "fault"),
    [
        ("READONLY You can't write against a read only replica.", Course.DIAL_AGAIN, "redis is a replica"),
        ("ERR take: READONLY You can't write against a read only replica. script: x", Course.DIAL_AGAIN, "replica"),
        ("ERR WAIT cannot be used with replica instances.", Course.DIAL_AGAIN, "redis is a replica"),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", Course.DIAL_AGAIN, ""),
        ("CLUSTERDOWN Hash slot not served", Course.DIAL_AGAIN, "redis is a node of a cluster"),
        ("MOVED 8194 127.0.0.1:7001", Course.DIAL_AGAIN, "redis is a node of a cluster"),
        ("NOAUTH Authentication required.", Course.DIAL_AGAIN, "redis does not let the gateway in"),
        ("WRONGPASS invalid username-password pair or user is disabled.", Course.DIAL_AGAIN, ""),
        ("NOPERM User default has no permissions to run the 'evalsha' command", Course.DIAL_AGAIN, ""),
        ("ERR take: ERR The user executing the script can't run this command or subcommand", Course.DIAL_AGAIN, ""),
        ("LOADING Valkey is loading the dataset in memory", Course.LOOK_AGAIN, "redis loads its data"),
        ("BUSY Valkey is busy running a script.", Course.LOOK_AGAIN, "redis is busy with a script"),
        ("MISCONF Valkey is configured to save RDB snapshots", Course.LOOK_AGAIN, "redis cannot write to its disk"),
        ("ERR take: OOM command not allowed when used memory > 'maxmemory'.", Course.LOOK_AGAIN, "no memory left"),
        ("NOREPLICAS Not enough good replicas to write.", Course.LOOK_AGAIN, "fewer replicas"),
    ],
)
def test_each_word_for_not_now_has_its_course(error: str, course: Course, fault: str) -> None:
    refused = redis_server.refused(error)
    assert refused is not None
    assert refused.course is course
    assert fault in refused.fault


@pytest.mark.parametrize(
    "error",
    [
        "ERR take: not a number of meters: x",
        "ERR take: WRONGTYPE Operation against a key holding the wrong kind of value",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "NOSCRIPT No matching script.",
        "ERR unknown command 'READONLY'",
    ],
)
def test_an_error_of_one_command_is_no_refusal_of_the_server(error: str) -> None:
    assert redis_server.refused(error) is None
