"""own limits: the quotas and the rate of a key are checked and charged in the organization's take: both, or neither."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from quota.access import AccessChanges, KeyRecord, Path, Quota, version_word
from quota.calls.replay import decode_replayed, replay_call
from quota.calls.take import Take, decode_take, take_call
from quota.events import parse
from quota.ledger import Ledger
from quota.model import (
    Admitted,
    Decision,
    Exhausted,
    Level,
    MeterBalance,
    MeterLimit,
    NodeUsage,
    RateLimit,
    RateLimited,
)
from quota.periods import Period
from quota.wire import ReplayOutcome
from tests import charging
from tests.quota.books import Books, expect
from tests.replies import as_text

ID = "keyNumberOne"
NODE = f"k:{ID}"
PATH = str(Path("acme", "7", ID))
DAY = 86_400
METERS = (MeterLimit("api_calls", 100), MeterLimit("tokens", 100))


def limits(*quotas: Quota, rate: RateLimit | None = None) -> str:
    return KeyRecord(ID, quotas=quotas, rate=rate).limits


async def take(books: Books, own: str, key: str | None = None, path: str = PATH, **charges: int) -> Decision:
    version = version_word(books.version, [own])
    charges = charges or {"api_calls": 1}
    return await charging.take(books.ledger, books.org, next(books.request_ids), charges, key, path, version)


async def nodes(books: Books) -> dict[tuple[str, int], int]:
    """Units by meter and window."""
    return {(n.meter, n.window_seconds): n.used for n in (await books.snapshot()).nodes}


@pytest.fixture
async def published(books: Books) -> Books:
    await books.publish(meters=METERS)
    return books


async def test_a_key_uses_no_more_than_its_quota_however_much_its_organization_has(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 5))
    assert expect(Admitted, await take(books, own, api_calls=3)).balances == [MeterBalance("api_calls", 100, 97, 0)]
    async with books.unchanged():
        refused = expect(Exhausted, await take(books, own, api_calls=3))
        assert (refused.level, refused.over_limit) == (Level.KEY, False)
        assert (refused.balance, refused.period) == (MeterBalance("api_calls", 5, 2, 0), books.periods[0])
        assert expect(Exhausted, await take(books, own, api_calls=6)).over_limit
    await take(books, own, api_calls=2)
    assert isinstance(await take(books, own), Exhausted)
    assert isinstance(await take(books, own, api_calls=0), Admitted)
    assert isinstance(await take(books, ""), Admitted)  # another principal of the organization
    assert await nodes(books) == {("api_calls", 0): 5}
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 6}


async def test_what_the_organization_refuses_is_not_counted_for_the_key(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 2),))
    async with books.unchanged():
        refused = expect(Exhausted, await take(books, limits(Quota("api_calls", 50)), api_calls=3))
    assert refused.level is Level.ORGANIZATION
    async with books.unchanged():
        both = expect(Exhausted, await take(books, limits(Quota("api_calls", 1)), api_calls=3))
    assert both.level is Level.ORGANIZATION


async def test_several_meters_are_counted_for_the_key_together_or_none_of_them(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 5), Quota("tokens", 10))
    async with books.unchanged():
        refused = expect(Exhausted, await take(books, own, api_calls=1, tokens=11))
    assert refused.balance == MeterBalance("tokens", 10, 10, 0)
    await take(books, own, tokens=10, api_calls=1)
    assert await nodes(books) == {("api_calls", 0): 1, ("tokens", 0): 10}
    await take(books, limits(Quota("tokens", 10)), api_calls=3)
    assert await nodes(books) == {("api_calls", 0): 1, ("tokens", 0): 10}


async def test_a_refusal_says_when_the_window_that_is_used_up_ends(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 9, DAY), Quota("api_calls", 2, 7 * DAY))
    await take(books, own, api_calls=2)
    refused = expect(Exhausted, await take(books, own))
    start = refused.now_us // 1_000_000 // (7 * DAY) * 7 * DAY
    assert refused.period == Period(start, start + 7 * DAY)
    assert refused.balance == MeterBalance("api_calls", 2, 0, 0)


async def test_a_new_window_starts_from_zero_and_takes_the_place_of_the_old_one(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 5, DAY), Quota("api_calls", 5))
    yesterday = books.now // DAY * DAY - DAY
    await books.redis.hset(books.hash, f"n:{NODE}:api_calls", f"{DAY}:{yesterday}:5 0:{books.start - 10}:5")
    await take(books, own, api_calls=4)
    today = [n for n in (await books.snapshot()).nodes if n.window_seconds == DAY]
    assert today[0].start > yesterday
    assert await nodes(books) == {("api_calls", DAY): 4, ("api_calls", 0): 4}


async def test_keys_have_counters_of_their_own(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 5))
    await take(books, own, api_calls=5)
    other = KeyRecord("keyNumberTwo", quotas=(Quota("api_calls", 5),)).limits
    assert isinstance(await take(books, other, path="acme/k:keyNumberTwo", api_calls=5), Admitted)
    assert isinstance(await take(books, own), Exhausted)


async def test_nodes_of_several_levels_are_checked_in_one_take(published: Books) -> None:
    books = published
    own = f"{limits(Quota('api_calls', 5))} u:7 @1000000,2000000 api_calls=0:3"
    await take(books, own, api_calls=3)
    refused = expect(Exhausted, await take(books, own))
    assert (refused.level, refused.balance.limit) == (Level.USER, 3)
    limited = [await take(books, own, api_calls=0) for _ in range(2)][-1]
    assert expect(RateLimited, limited).level is Level.USER


async def test_a_key_has_a_rate_of_its_own_within_that_of_its_organization(books: Books) -> None:
    await books.publish(rate=RateLimit(1, 3600, 3))
    own = limits(rate=RateLimit(1, 7200, 2))
    for _ in range(2):
        assert isinstance(await take(books, own), Admitted)
    async with books.unchanged():
        refused = expect(RateLimited, await take(books, own))
    assert (refused.level, refused.interval_us, refused.burst_us) == (Level.KEY, 7.2e9, 1.44e10)
    assert isinstance(await take(books, ""), Admitted)
    assert expect(RateLimited, await take(books, own)).level is Level.ORGANIZATION
    assert "@" not in (await books.texts())[0]  # it was charged to no quota of the key


async def test_a_rate_that_refuses_uses_none_of_the_quota_and_a_quota_that_refuses_none_of_the_rate(
    published: Books,
) -> None:
    books, own = published, limits(Quota("api_calls", 2), rate=RateLimit(1, 3600, 2))
    await take(books, own)
    async with books.unchanged():
        assert expect(Exhausted, await take(books, own, api_calls=2)).level is Level.KEY
    await take(books, own)
    async with books.unchanged():
        assert isinstance(await take(books, own, api_calls=0), RateLimited)


async def test_of_takes_at_once_exactly_as_many_are_admitted_as_the_key_may(published: Books, redis_url: str) -> None:
    books, own = published, limits(Quota("api_calls", 10, DAY), Quota("api_calls", 10))

    async def one(n: int) -> Decision:
        async with Redis.from_url(redis_url) as redis:
            version = version_word(books.version, [own])
            return await charging.take(Ledger(redis), books.org, f"r{n}", {"api_calls": 1}, None, PATH, version)

    decisions = await asyncio.gather(*[one(n) for n in range(30)])
    assert [type(d) for d in decisions].count(Admitted) == 10
    assert (await nodes(books))["api_calls", 0] == 10


async def test_requests_of_one_call_see_what_those_before_them_left_of_the_key(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 3))
    takes = [
        Take(books.org, f"r{n}", {"api_calls": 1}, path=PATH, version=version_word(books.version, [own]))
        for n in range(5)
    ]
    replies = await books.ledger.run(take_call(takes, books.ledger.shards))
    assert [type(decode_take(reply, ["api_calls"])) for reply in replies] == [Admitted] * 3 + [Exhausted] * 2


async def test_a_repetition_is_neither_counted_for_the_key_nor_refused_by_its_quota(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 2), rate=RateLimit(1, 3600, 3))
    first = expect(Admitted, await take(books, own, "once", api_calls=2))
    again = expect(Admitted, await take(books, own, "once", api_calls=2))
    assert again.replayed
    assert again.receipt == first.receipt
    assert await nodes(books) == {("api_calls", 0): 2}
    await take(books, own, "once", api_calls=2)
    assert expect(RateLimited, await take(books, own, "once", api_calls=2)).level is Level.KEY
    given = [await books.ledger.give_back(books.org, first.receipt, "once", str(n)) for n in (1, 2, 3)]
    assert [settlement.applied for settlement in given] == [False, False, True]
    assert await nodes(books) == {("api_calls", 0): 0}


async def test_the_event_says_which_key_and_user_were_charged_and_when(published: Books) -> None:
    books = published
    admitted = expect(Admitted, await take(books, limits(Quota("api_calls", 5))))
    await books.settle(admitted.receipt, api_calls=0)
    for event in await books.events():
        assert (event.org, event.user, event.key, event.at) == ("acme", "7", ID, admitted.now_us // 1_000_000)
        assert str(event.path) == PATH
    assert (await books.texts())[0].encode() == admitted.receipt


async def test_a_correction_belongs_to_the_windows_in_which_the_request_was_charged(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 50, DAY), Quota("api_calls", 50), Quota("tokens", 50, DAY))
    receipt = expect(Admitted, await take(books, own, api_calls=10, tokens=4)).receipt
    await books.settle(receipt, api_calls=3)
    assert await nodes(books) == {("api_calls", DAY): 3, ("api_calls", 0): 3, ("tokens", DAY): 4}
    more = expect(Admitted, await take(books, own, api_calls=7)).receipt
    await books.settle(more, api_calls=60)  # used, so it is charged, as far as the organization may
    assert await nodes(books) == {("api_calls", DAY): 63, ("api_calls", 0): 63, ("tokens", DAY): 4}
    assert isinstance(await take(books, own), Exhausted)
    assert isinstance(await take(books, own, api_calls=0), Admitted)
    assert await books.counters() == await books.event_sums()


async def test_units_that_are_given_back_later_are_not_given_away_in_the_next_window(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 50, DAY), Quota("api_calls", 50))
    receipt = expect(Admitted, await take(books, own, api_calls=10)).receipt
    event = parse(receipt.decode())
    day = expect(int, event.at) // DAY * DAY + DAY
    following = f"{DAY}:{day}:20 0:{books.start + 1}:20"
    await books.redis.hset(books.hash, f"n:{NODE}:api_calls", following)
    await books.settle(receipt, api_calls=0)
    assert as_text(await books.redis.hget(books.hash, f"n:{NODE}:api_calls")) == following
    assert await books.counters() == {}


async def test_a_charge_that_counted_for_no_quota_gives_none_back(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 50))
    uncounted = expect(Admitted, await take(books, "", api_calls=10)).receipt
    await take(books, own, api_calls=10)
    await books.settle(uncounted, api_calls=0)
    assert await nodes(books) == {("api_calls", 0): 10}


async def test_what_was_forwarded_without_a_take_counts_in_the_windows_that_the_key_has(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 5, DAY), Quota("api_calls", 50))
    await take(books, own, api_calls=4)
    call = replay_call(PATH, "replayed", {"api_calls": 3, "tokens": 2}, books.ledger.shards)
    replayed = decode_replayed(await books.ledger.run(call))
    assert replayed.outcome is ReplayOutcome.CHARGED
    assert await nodes(books) == {("api_calls", DAY): 7, ("api_calls", 0): 7}
    assert decode_replayed(await books.ledger.run(call)).outcome is ReplayOutcome.REPLAYED_BEFORE
    event = parse(replayed.receipt.decode())
    assert (event.key, event.at is None) == (ID, False)
    assert isinstance(await take(books, own), Exhausted)
    await books.settle(replayed.receipt, api_calls=0)
    assert await nodes(books) == {("api_calls", DAY): 4, ("api_calls", 0): 4}


async def test_what_was_forwarded_without_a_take_begins_a_window_that_is_due(published: Books) -> None:
    books = published
    yesterday = books.now // DAY * DAY - DAY
    await books.redis.hset(books.hash, f"n:{NODE}:api_calls", f"{DAY}:{yesterday}:5")
    await books.ledger.run(replay_call(PATH, "replayed", {"api_calls": 3}, books.ledger.shards))
    assert await nodes(books) == {("api_calls", DAY): 3}


async def test_events_that_are_put_back_count_in_the_windows_in_which_they_were_charged(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 50, DAY), Quota("api_calls", 50))
    now_s = expect(Admitted, await take(books, own, api_calls=4)).now_us // 1_000_000
    events = [
        f"t lost {PATH} {books.start}@{now_s} api_calls:3 tokens:2:1:bonus=1",
        f"t old {PATH} {books.start}@{now_s - 2 * DAY} api_calls:5",
        f"t uncounted {PATH} {books.start} api_calls:7",
        f"t unknown acme/k:keyNumberTwo {books.start}@{now_s} api_calls:9",
    ]
    moves = {f"used:{books.start}:api_calls": 24, f"used:{books.start}:tokens": 2}
    await books.ledger.append(books.org, events, moves)
    assert await nodes(books) == {("api_calls", DAY): 7, ("api_calls", 0): 12}
    await books.ledger.append(books.org, events, {})  # the counters have them
    assert await nodes(books) == {("api_calls", DAY): 7, ("api_calls", 0): 12}


async def test_counters_that_were_lost_are_put_back_and_those_that_are_there_are_kept(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 5, DAY), Quota("api_calls", 9), Quota("tokens", 7))
    today = books.now // DAY * DAY
    seeded = [
        NodeUsage(NODE, "api_calls", DAY, today, 4),
        NodeUsage(NODE, "api_calls", 0, books.start, 6),
        NodeUsage(NODE, "tokens", 0, books.start, 7),
    ]
    assert await books.ledger.seed(books.org, [], {}, nodes=seeded) == 2
    assert (await books.snapshot()).nodes == tuple(sorted(seeded, key=lambda n: (n.node, n.meter, n.window_seconds)))
    assert expect(Exhausted, await take(books, own, tokens=1)).level is Level.KEY
    assert await books.ledger.seed(books.org, [], {}, nodes=[NodeUsage(NODE, "tokens", 0, books.start, 1)]) == 0
    assert (await nodes(books))["tokens", 0] == 7


@pytest.fixture
async def used(published: Books) -> Books:
    """A key with counters in a window that is over, in one of this period, and with a rate."""
    own = limits(Quota("api_calls", 50), rate=RateLimit(1, 3600, 5))
    await take(published, own, api_calls=10)
    over = f"60:{published.now - 120}:5"
    await published.redis.hset(
        published.hash, mapping={f"n:{NODE}:tokens": over, "nt:k:keyNumberTwo": (published.now - 1) * 1_000_000}
    )
    return published


async def fields(books: Books) -> set[str]:
    return {name for name in map(as_text, await books.redis.hkeys(books.hash)) if name.startswith("n")}


async def test_a_publication_drops_counters_of_windows_that_are_over(used: Books) -> None:
    await used.publish(meters=METERS)
    assert await fields(used) == {f"n:{NODE}:api_calls", f"nt:{NODE}"}
    await used.publish(meters=METERS, periods=(Period(used.start + 10, used.now + 10**6), Period(10**10, 10**10 + 1)))
    assert await fields(used) == {f"nt:{NODE}"}


async def test_thousands_of_counters_that_are_over_are_dropped_by_one_publication(used: Books) -> None:
    over: dict[Any, Any] = {f"n:k:{n:012d}:api_calls": f"60:{used.now - 120}:5" for n in range(9_000)}
    await used.redis.hset(used.hash, mapping=over)
    await used.publish(meters=METERS)
    assert await fields(used) == {f"n:{NODE}:api_calls", f"nt:{NODE}"}


async def test_a_publication_drops_counters_of_keys_that_are_gone(used: Books) -> None:
    other = KeyRecord("keyNumberTwo", quotas=(Quota("api_calls", 5),)).limits
    await take(used, other, path="acme/k:keyNumberTwo")
    changes = AccessChanges(used.version, gone=frozenset({ID}))
    await used.ledger.publish(used.entitlement(meters=METERS), access=changes)
    assert await fields(used) == {"n:k:keyNumberTwo:api_calls"}


@pytest.mark.parametrize("own", ["x", "k:", "x:keyNumberOne", "api_calls=0:5", "@1,2", f"{NODE} @x,1", f"{NODE} what"])
async def test_limits_that_cannot_be_read_are_an_error_and_charge_nothing(published: Books, own: str) -> None:
    async with published.unchanged():
        with pytest.raises(Exception, match="not a limit"):
            await take(published, own)


async def test_usage_that_is_reported_is_counted_for_a_key_and_not_limited_by_its_rate(published: Books) -> None:
    books, own = published, limits(Quota("api_calls", 3), rate=RateLimit(1, 3600, 1))
    version = version_word(books.version, [own])
    takes = [Take(books.org, f"r{n}", {"api_calls": 1}, f"i{n}", True, PATH, version) for n in range(4)]
    replies: list[Any] = await books.ledger.run(take_call(takes, books.ledger.shards))
    assert not any(isinstance(reply, ResponseError) for reply in replies)
    assert [type(decode_take(reply, ["api_calls"])) for reply in replies] == [Admitted] * 3 + [Exhausted]
