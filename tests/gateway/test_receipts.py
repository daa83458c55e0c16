"""The promise: what a worker was answered it can tell until that is written, within a bound that is said."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.ledger.receipts import REPORTED_AT_ONCE, Receipts
from gateway.ledger.receipts_keeper import ReceiptsKeeper
from quota import keys
from quota.keys import SHARDS_DEFAULT
from quota.recovery_message import RecoveryMessage
from tests.gateway.epochs import vouch
from tests.gateway.rig import PATIENCE_SECONDS, Gateway, Organization, StartGateway
from tests.replies import as_text


@pytest.fixture
def soon(intervals: dict[str, Any]) -> None:
    """What is old is old at once."""
    intervals |= {"receipts_seconds": 0.05, "receipts_anew_ms": 0, "receipts_look_seconds": 0.02}


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, socket_timeout=2 * PATIENCE_SECONDS) as client:
        yield client


async def tell_written(redis: Redis, epoch: int, ahead_ms: int = 0) -> None:
    """As a writer does that has written all."""
    seconds, microseconds = await redis.time()
    mark = f"{epoch} {seconds * 1000 + microseconds // 1000 + ahead_ms}"
    await redis.hset(keys.WRITTEN, mapping={str(shard): mark for shard in range(SHARDS_DEFAULT)})


async def reported(redis: Redis, gateway: Gateway) -> tuple[set[str], list[str]]:
    """Request ids of the receipts that it tells now, and what it says of them."""
    gateway.link.receipts_keeper.report(RecoveryMessage("n"))
    lines: list[str] = []
    while "end n" not in lines:
        item = await redis.blpop([keys.RECEIPTS], timeout=PATIENCE_SECONDS)
        assert item is not None
        lines += as_text(item[1]).split("\n")
    [kept] = [line.split(" ")[1:] for line in lines if line.startswith("kept ")]
    return {line.split(" ")[1] for line in lines if line.startswith("t ")}, kept


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - timers of the link
            await asyncio.sleep(0.005)


async def admitted(gateway: Gateway, acme: Organization, times: int) -> None:
    for _ in range(times):
        assert (await gateway.get("/", acme)).status == 200


async def test_what_is_not_written_is_told_however_long_ago_it_was_and_what_is_written_is_forgotten(
    start: StartGateway, acme: Organization, redis: Redis, soon: None
) -> None:
    await acme.publish(1000)
    gateway = await start()
    await vouch(redis, 1)
    kept = gateway.link.receipts
    await tell_written(redis, 1)
    await admitted(gateway, acme, 1)
    await until(lambda: kept.confirms)

    await admitted(gateway, acme, 20)
    await until(lambda: kept._packed_takes >= 20)
    ids, _ = await reported(redis, gateway)
    assert len(ids) >= 20
    await tell_written(redis, 2, 60_000)  # of another epoch
    await tell_written(redis, 1, 60_000)  # a clock that has gone back since
    await admitted(gateway, acme, 1)
    await until(lambda: kept._packed_takes >= 21)
    assert (await reported(redis, gateway))[0] > ids
    await tell_written(redis, 1, 1)

    async def forgotten() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while kept.held:
                await tell_written(redis, 1)
                await asyncio.sleep(0.01)

    await forgotten()
    assert (await reported(redis, gateway))[0] == set()


async def test_takes_stop_when_one_waits_too_long_to_be_written_and_go_on_when_it_is(
    start: StartGateway, acme: Organization, redis: Redis, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await acme.publish(1000)
    gateway = await start(redis={"unwritten_seconds_max": 10})
    assert isinstance(gateway.link.receipts_keeper, ReceiptsKeeper)
    gateway.link.receipts_keeper.unwritten_seconds_max = 0.2
    gateway.expected_errors.add("takes wait until what was charged is written")
    await vouch(redis, 1)
    await admitted(gateway, acme, 1)
    await until(lambda: gateway.link.fault is not None)
    assert (await gateway.get("/", acme)).status == 503
    assert "what was charged is not written in time" in (await gateway.get("/-/ready")).body.decode()
    used = await acme.used()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while gateway.link.fault is not None:
            await tell_written(redis, 1)
            await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await gateway.get("/", acme)).status != 200:
            await tell_written(redis, 1)
    assert await acme.used() == used + 1


async def test_beyond_the_bound_the_oldest_are_forgotten_and_counted_until_they_are_written(
    start: StartGateway, acme: Organization, redis: Redis, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await acme.publish(1000)
    gateway = await start(routes=[{"path": "/", "upstream": "api", "meters": {"api_calls": 3}}])
    kept = gateway.link.receipts
    kept._receipts_max, kept.confirms = 10, True
    await vouch(redis, 1)
    for _ in range(40):
        await admitted(gateway, acme, 1)
        await until(lambda: not kept._batches)
    ids, (_, takes, units) = await reported(redis, gateway)
    assert 1 <= len(ids) <= 10
    assert int(takes) == 40 - len(ids)
    assert int(units) == 3 * int(takes)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while kept.held:
            await tell_written(redis, 1)
            await asyncio.sleep(0.01)
    assert (await reported(redis, gateway))[1][1:] == ["0", "0"]


async def test_without_a_writer_that_tells_takes_are_remembered_for_some_seconds(
    start: StartGateway, acme: Organization, redis: Redis, soon: None
) -> None:
    await acme.publish(1000)
    gateway = await start()
    await admitted(gateway, acme, 5)
    await until(lambda: not gateway.link.receipts.held)
    assert (await reported(redis, gateway))[1][1:] == ["0", "0"]


def a_take(n: int) -> bytes:
    """A reply."""
    return b"\x01\x00" + bytes(32) + bytes(24) + b"t %020x acme-%d 1793491200 api_calls:1" % (n * 7919, n % 50)


def test_what_is_told_is_told_in_pieces_and_is_all_of_it_whatever_becomes_of_it_meanwhile() -> None:
    kept = Receipts(receipts_max=20_000)
    kept.confirms = True
    refused = b"\x02" + bytes(40)
    for n in range(20_000):
        kept.add(0.0 if n < 15_000 else 100.0, [a_take(n), refused])
    while kept.tidy(100.0):
        pass
    kept.heard(100.0, 1_793_491_300_000)
    portions = kept.report()
    lines = next(portions).splitlines()
    kept.add(500.0, [a_take(30_000)])
    kept._receipts_max = 10
    while kept.tidy(500.0):  # it is packed, and forgotten, in between
        pass
    for portion in portions:
        assert len(portion.splitlines()) <= REPORTED_AT_ONCE + 1
        assert portion.startswith(b"since 1793491200000\n"), "each is understood without the others"
        lines += portion.splitlines()
    ids = [line.split(b" ")[1] for line in lines if line.startswith(b"t ")]
    assert len(ids) == 20_000
    assert set(ids) == {b"%020x" % (n * 7919) for n in range(20_000)}
    assert lines[-1].startswith(b"kept ")


async def test_the_loop_goes_on_while_receipts_are_told(start: StartGateway, redis: Redis) -> None:
    gateway = await start()
    link = gateway.link
    known, connection = link.receipts, link.connection
    assert connection is not None
    takes = 20 * REPORTED_AT_ONCE
    known.add(asyncio.get_running_loop().time(), [a_take(n) for n in range(takes)])
    parts: list[int] = []
    turns = 0

    def watched() -> Iterator[bytes]:
        """Notes in which turn of the loop each portion is made."""
        for portion in known.report():
            parts.append(turns)
            yield portion

    assert isinstance(link.receipts_keeper, ReceiptsKeeper)
    link.receipts_keeper._report_on(connection, watched(), "n")
    while len(parts) <= 20:
        turns += 1
        await asyncio.sleep(0)
    assert parts == sorted(set(parts)), "no two in one turn"


def test_what_is_packed_takes_little_room() -> None:
    kept = Receipts()
    kept.confirms = True
    balance = b"\x01\x00" + bytes(32) + bytes(24)
    for n in range(50_000):
        kept.add(0.0, [balance + b"t %020x acme-%d 1793491200 api_calls:1" % (n * 7919, n % 50)])
    while kept.tidy(100.0):
        pass
    assert kept._packed_takes == 50_000
    assert sum(len(each.data) for each in kept._packed) < 50_000 * 30
