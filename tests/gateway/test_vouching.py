"""The promise: a gateway takes from no Redis but the one that was vouched for last, as far as anybody can tell it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from gateway.ledger import settlements
from gateway.ledger.settlements import RETRY_SECONDS
from gateway.redis import vouching
from gateway.redis.pauses import Pause
from gateway.redis.vouching import Belief, SeenEpochs, VouchedServer
from quota import keys
from quota.keys import SHARDS_DEFAULT
from quota.recovery_message import RecoveryMessage
from tests.gateway.epochs import vouch
from tests.gateway.rig import PATIENCE_SECONDS, Gateway, Organization, Peer, StartGateway, Upstream, get, until
from tests.replies import as_bytes, as_text


async def question(redis: Redis) -> tuple[str, int]:
    """What a gateway asks: its name, and what it has seen."""
    asked = await redis.blpop([keys.VOUCH], timeout=PATIENCE_SECONDS)
    assert asked is not None
    name, _, seen = as_text(asked[1]).partition(" ")
    return name, int(seen)


async def comes_to(gateway: Gateway, acme: Organization, status: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await gateway.get("/", acme)).status != status:  # noqa: ASYNC110 - it calls nobody back
            await asyncio.sleep(0.01)


async def connects_anew(gateway: Gateway) -> None:
    before = gateway.link.connection
    assert before is not None
    before.abort("the test ends it")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while gateway.link.connection in (before, None):  # noqa: ASYNC110 - it calls nobody back
            await asyncio.sleep(0.005)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, socket_timeout=2 * PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture
def long_patience(intervals: dict[str, Any]) -> None:
    intervals["vouching_answer_seconds"] = 10 * PATIENCE_SECONDS


@pytest.mark.usefixtures("unopened")
async def test_a_gateway_that_has_just_come_takes_nothing_before_it_is_told_whom_to_believe(
    start: StartGateway, acme: Organization, redis: Redis, long_patience: None, intervals: dict[str, Any]
) -> None:
    intervals["start_answer_seconds"] = 0.1  # it starts all the same, and says so
    await acme.publish(100)
    await vouch(redis, 4)
    gateway = await start()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not gateway.link.asking:  # noqa: ASYNC110 - it connects on its own
            await asyncio.sleep(0.005)
    assert (await gateway.get("/", acme)).status == 503
    ready = await gateway.get("/-/ready")
    assert (ready.status, json.loads(ready.body)["faults"]) == (
        503,
        ["whether redis is the one to believe is being asked"],
    )
    name, seen = await question(redis)
    assert seen == 0

    await redis.set(keys.answer_key(name), "-")
    assert await question(redis) == (name, 0)
    assert (await gateway.get("/", acme)).status == 503, "nobody could tell"
    await redis.set(keys.answer_key(name), "3")
    assert await question(redis) == (name, 0)
    assert (await gateway.get("/", acme)).status == 503, "another epoch than the one that is here"

    await redis.set(keys.answer_key(name), "4")
    await comes_to(gateway, acme, 200)
    assert (await gateway.get("/-/ready")).status == 200


async def test_where_no_control_plane_answers_a_gateway_starts_all_the_same(
    start: StartGateway, acme: Organization, redis: Redis, intervals: dict[str, Any]
) -> None:
    intervals["vouching_answer_seconds"] = 0.2
    await acme.publish(100)
    await vouch(redis, None)
    gateway = await start()
    assert (await gateway.get("/", acme)).status == 200


async def test_a_server_in_an_epoch_that_is_over_is_refused_until_it_is_vouched_for_anew(
    start: StartGateway, acme: Organization, redis: Redis
) -> None:
    await acme.publish(100)
    gateway = await start()
    await vouch(redis, 7)
    await connects_anew(gateway)
    await comes_to(gateway, acme, 200)
    used = await acme.used()
    for epoch in (6, None):
        await vouch(redis, epoch)
        await connects_anew(gateway)
        name, seen = await question(redis)
        assert seen == 7, "so that an epoch above it is made"
        assert (await gateway.get("/", acme)).status == 503
        await redis.set(keys.answer_key(name), "6")
        assert await question(redis) == (name, 7)
        assert (await gateway.get("/", acme)).status == 503, "whoever answers: it has seen a higher one"
    assert await acme.used() == used
    await vouch(redis, 8)
    await comes_to(gateway, acme, 200)
    assert gateway.link.server.epoch == 8


async def test_a_gateway_that_is_told_to_wait_takes_nothing_on_the_connection_that_it_has(
    start: StartGateway, acme: Organization, redis: Redis
) -> None:
    await acme.publish(100)
    gateway = await start()
    assert (await gateway.get("/", acme)).status == 200
    await redis.mset({keys.generation_key(shard): "-0123" for shard in range(SHARDS_DEFAULT)})
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await redis.publish(keys.RECOVER, RecoveryMessage("0123", fences=True).text):  # noqa: ASYNC110 - until it listens
            await asyncio.sleep(0.01)
    await comes_to(gateway, acme, 503)
    report = await redis.blpop([keys.RECEIPTS], timeout=PATIENCE_SECONDS)
    assert report is not None
    assert as_bytes(report[1]).startswith(b"t ")
    used = await acme.used()
    await vouch(redis, 3)
    await comes_to(gateway, acme, 200)
    assert await acme.used() == used + 1


async def test_a_charge_is_given_back_only_where_redis_is_vouched_for_which_may_know_that_it_was(
    start: StartGateway, acme: Organization, redis: Redis, upstream: Upstream
) -> None:
    """It may be repeated, and the server in front have forgotten the first time."""
    held, over = list[Peer](), asyncio.Event()

    async def hold(peer: Peer, _: bytes) -> None:
        held.append(peer)
        await over.wait()

    await acme.publish(100)
    gateway = await start()
    upstream.script = hold
    client = await gateway.connect()
    client.send(get("/", acme))
    await acme.settled("t")
    await redis.mset({keys.generation_key(shard): "-0123" for shard in range(SHARDS_DEFAULT)})
    await connects_anew(gateway)
    held[0].writer.transport.abort()
    assert (await client.answer()).status == 502
    await asyncio.sleep(2 * RETRY_SECONDS)
    assert gateway.worker.settlements.open == 1
    assert await acme.used() == 1
    await vouch(redis, 3)
    assert await acme.settled("ts")
    assert await acme.used() == 0
    over.set()


async def test_a_take_whose_reply_was_lost_is_given_back_only_at_a_server_that_has_it(
    start: StartGateway, acme: Organization, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found, and could not be given back there; then another server is in front, which had not heard of it."""
    monkeypatch.setattr(settlements, "LOOK_AGAIN_SECONDS", RETRY_SECONDS)
    await acme.publish(100)
    gateway = await start()
    assert (await gateway.get("/", acme)).status == 200
    stream = keys.events_key(keys.shard_of(acme.id, SHARDS_DEFAULT))
    [(_, fields)] = await cast("Any", redis).xrange(stream)
    taken = as_text(fields[b"e"]).split()[1].encode()
    await redis.config_set("min-replicas-to-write", 1)
    try:
        gateway.worker.settlements.void(acme.id, taken)
        await until(lambda: gateway.link.pauses.refused is not None)
    finally:
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.config_set("min-replicas-to-write", 0)
            pipeline.delete(stream)
            await pipeline.execute()
    await until(lambda: not gateway.worker.settlements.open)
    assert await redis.xlen(stream) == 0
    assert gateway.worker.settlements.given_back == 0


async def test_a_server_whose_epoch_a_recovery_has_ended_is_believed_no_more_though_it_still_names_itself(
    start: StartGateway, acme: Organization, redis: Redis
) -> None:
    """It was cut off: the recovery puts together another one, and only the gateway hears of it."""
    await acme.publish(100)
    await vouch(redis, 3)
    gateway = await start()
    await redis.set(keys.answer_key((await question(redis))[0]), "3")
    await comes_to(gateway, acme, 200)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await redis.publish(keys.RECOVER, RecoveryMessage("0123", fences=True, over=3).text):  # noqa: ASYNC110 - until it listens
            await asyncio.sleep(0.01)
    await comes_to(gateway, acme, 503)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await question(redis))[1] != 4:  # those of its start came first; now it has looked again
            pass
    assert (await gateway.get("/", acme)).status == 503
    await vouch(redis, 4)
    await comes_to(gateway, acme, 200)


async def test_after_a_recovery_asked_a_gateway_is_not_sure_of_the_server_that_it_had_just_now() -> None:
    server = VouchedServer(SeenEpochs(None), 1)
    server.connected(b"one", {0: b"one:3:0"}, 0.0)
    server.looked({0: b"one:3:0"}, b"3", 0.1)
    server.lost(0.2)
    server.put_aside({0: 3})
    server.connected(b"one", {0: b"one:4:0"}, 0.3)
    assert server.belief is Belief.ASKING


def test_workers_of_one_gateway_have_seen_what_any_of_them_has(tmp_path: Path) -> None:
    one, other, stranger = SeenEpochs(tmp_path), SeenEpochs(tmp_path), SeenEpochs(None)
    one.saw({0: 5, 1: 2})
    other.saw({0: 3, 1: 4})
    assert (one.by_shard[:3], other.by_shard[:3], stranger.by_shard[:3]) == ((5, 4, 0), (5, 4, 0), (0, 0, 0))
    other.saw({0: 9})
    assert SeenEpochs(tmp_path).by_shard == one.by_shard
    assert one.by_shard[:2] == (9, 4)


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("seen", [False, True])
async def test_a_redis_that_is_not_vouched_for_is_a_warning_only_to_a_gateway_that_knew_another(
    start: StartGateway, acme: Organization, redis: Redis, seen: bool
) -> None:
    if seen:
        await vouch(redis, 4)
    else:
        await redis.mset({keys.generation_key(shard): vouching.REBUILDING for shard in range(SHARDS_DEFAULT)})
    gateway = await start()
    if seen:
        await comes_to(gateway, acme, 200)
        await redis.mset({keys.generation_key(shard): vouching.REBUILDING for shard in range(SHARDS_DEFAULT)})
        await connects_anew(gateway)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while Pause.REBUILDING not in gateway.link.pauses:  # noqa: ASYNC110 - it calls nobody back
            await asyncio.sleep(0.005)
    levels = {each["log_level"] for each in gateway.logs if "vouched for" in each["event"]}
    assert ("warning" in levels) == seen
    assert levels
