"""The ledger's calls over a connection: what is refused before Redis hears of it, and what Redis may do to them."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from quota import keys
from quota.calls.take import charge_argv
from quota.events import parse
from quota.ledger import Ledger, LedgerUnavailable, MemoryLost, ShardMismatch
from quota.model import COST_MAX, Admitted, Entitlement, Grant, MeterLimit, OveragePolicy, Status
from quota.scripts import script
from tests import charging
from tests.quota.books import Books

SCRIPTS = ("take", "settle", "publish", "seed", "peek")


@pytest.mark.parametrize(
    "charges",
    [{}, {"api_calls": -1}, {"api_calls": COST_MAX + 1}, {"Api": 1}, {"a b": 1}, {"a:b": 1}, {"": 1}, {"a\n": 1}],
)
async def test_a_charge_that_cannot_be_written_down_is_refused_before_redis_hears_of_it(
    books: Books, charges: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match=r"meter|cost"):
        await charging.take(books.ledger, books.org, "r1", charges)


@pytest.mark.parametrize("request_id", ["", "a b", "a\n", "é", "x" * 201])
async def test_a_request_id_that_would_tear_the_event_is_refused(books: Books, request_id: str) -> None:
    await books.publish()
    async with books.unchanged():
        with pytest.raises(ValueError, match="request id"):
            await charging.take(books.ledger, books.org, request_id, {"api_calls": 1})


@pytest.mark.parametrize("org", ["", "a b", "-a", "a\n", "x" * 129])
async def test_an_organization_that_cannot_be_one_is_refused(books: Books, org: str) -> None:
    with pytest.raises(ValueError, match="organization"):
        await charging.take(books.ledger, org, "r1", {"api_calls": 1})


async def test_the_longest_names_there_may_be_are_charged_and_read_back(books: Books) -> None:
    org, meter, grant = "o" * 128, "m" * 63, "g" * 64
    await books.ledger.publish(
        Entitlement(
            org,
            1,
            Status.ACTIVE,
            policy=OveragePolicy.METERED,
            meters=(MeterLimit(meter, 1),),
            grants=(Grant(grant, meter, 1, books.now + 600),),
            periods=books.periods,
        )
    )
    decision = await charging.take(books.ledger, org, "~" * 200, {meter: 3})
    assert isinstance(decision, Admitted)
    event = parse(decision.receipt.decode())
    assert (event.request_id, event.org) == ("~" * 200, org)
    assert event.charges[0] == (meter, 3, 1, ((grant, 1),))
    assert (await charging.settle(books.ledger, org, decision.receipt, {meter: 0})).units == {meter: -3}


def test_the_words_of_a_charge_are_count_then_pairs() -> None:
    assert charge_argv({"api_calls": 1, "tokens": 20}) == [2, "api_calls", 1, "tokens", 20]


async def test_a_script_flush_is_survived_by_every_call(books: Books) -> None:
    async def forgotten() -> None:
        await books.redis.script_flush()

    await books.publish()
    await forgotten()
    receipt = await books.receipt(4)
    await forgotten()
    assert (await books.settle(receipt, api_calls=1)).applied
    await forgotten()
    assert await books.ledger.seed(books.org, [], {"bonus": 1}) == 1
    await forgotten()
    assert (await books.snapshot()).usage[0].used == 1
    await forgotten()
    assert await books.publish()
    await forgotten()
    await asyncio.gather(*[books.admitted() for _ in range(8)])
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 9}


async def test_a_call_after_the_first_goes_by_the_scripts_digest(books: Books) -> None:
    await books.publish()
    await books.admitted()
    assert await books.redis.script_exists(script("take").sha) == [True]
    await books.redis.config_resetstat()
    await books.admitted()
    commands = await books.redis.info("commandstats")
    assert "cmdstat_evalsha" in commands
    assert "cmdstat_eval" not in commands


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_opens_with_its_contract_and_leaves_no_include_open(name: str) -> None:
    source = script(name).source.decode()
    assert source.startswith(f"--[[ {name}: ")
    assert "@include" not in source


async def test_an_empty_redis_is_claimed_and_another_shard_count_is_refused(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await Ledger(redis, 8).check_layout()
        await Ledger(redis, 8).check_layout()
        assert await redis.get(keys.LAYOUT) == b"8"
        with pytest.raises(ShardMismatch, match=r"redis\.shards is 16, but .* installed with 8"):
            await Ledger(redis, 16).check_layout()
        assert await redis.get(keys.LAYOUT) == b"8"


async def test_of_two_that_claim_an_empty_redis_at_once_one_is_refused(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        claims = [Ledger(redis, shards).check_layout() for shards in (8, 16)]
        answers = await asyncio.gather(*claims, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType", "ShardMismatch"]


@pytest.mark.parametrize("shards", [0, -1, keys.SHARDS_MAX + 1])
async def test_a_shard_count_that_the_key_names_cannot_hold_is_refused(redis_url: str, shards: int) -> None:
    async with Redis.from_url(redis_url) as redis:
        with pytest.raises(ValueError, match="shards must be"):
            Ledger(redis, shards)


async def test_every_key_of_an_organization_is_in_one_cluster_slot(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt()
    await books.settle(receipt, api_calls=0)
    names = await books.redis.keys("*")
    assert len(names) == 3
    assert len({await books.redis.execute_command("CLUSTER KEYSLOT", name) for name in names}) == 1


async def test_a_redis_that_does_not_answer_is_unavailable(books: Books, unused_tcp_port: int) -> None:
    async with Redis(host="127.0.0.1", port=unused_tcp_port, retry=Retry(NoBackoff(), 0)) as redis:
        ledger = Ledger(redis)
        for call in (
            charging.take(ledger, books.org, "r1", {"api_calls": 1}),
            charging.settle(ledger, books.org, b"t r1 acme 100 api_calls:1", {"api_calls": 0}),
            ledger.publish(books.entitlement()),
            ledger.peek(books.org),
            ledger.check_layout(),
        ):
            with pytest.raises(LedgerUnavailable):
                await call


async def test_an_error_of_the_script_is_unavailable_and_says_why(books: Books) -> None:
    await books.redis.set(books.hash, "not a hash")
    with pytest.raises(LedgerUnavailable, match="WRONGTYPE"):
        await books.take()
    with pytest.raises(LedgerUnavailable, match="WRONGTYPE"):
        await books.ledger.peek(books.org)


async def test_a_redis_that_is_full_charges_nothing(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(2)
    await books.redis.config_set("maxmemory", 1)
    try:
        async with books.unchanged():
            for call in (books.take(), books.settle(receipt, api_calls=0)):
                with pytest.raises(LedgerUnavailable, match="maxmemory"):
                    await call
    finally:
        await books.redis.config_set("maxmemory", 0)
    assert (await books.settle(receipt, api_calls=0)).applied


async def test_what_a_recovery_that_was_given_up_appends_late_is_not_counted_twice(books: Books) -> None:
    """A call that was not answered in time may still be carried out. By then another recovery has its own mark."""
    await books.publish()
    event, moves = f"t lost {books.org} {books.start} api_calls:3", {f"used:{books.start}:api_calls": 3}
    generation_key = keys.generation_key(keys.shard_of(books.org, books.ledger.shards))
    await books.redis.set(generation_key, "-second")
    async with books.unchanged():
        with pytest.raises(MemoryLost):
            await books.ledger.append(books.org, [event], moves, "-first")
    await books.ledger.append(books.org, [event], moves, "-second")
    assert await books.redis.xlen(keys.events_key(keys.shard_of(books.org, books.ledger.shards))) == 1
