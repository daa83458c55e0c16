"""take has a plain way and a general one: of a request that both can decide, they say and write the same."""

from typing import Any

import pytest
from redis.exceptions import ResponseError

from quota.model import Grant, MeterLimit, MeterUsage, OveragePolicy, RateLimit, Status
from quota.periods import Period
from quota.scripts import script
from quota.wire import REPLY
from tests.quota.books import Books

BOTH = script("take").source.decode()
WAY = "repeat -- a request that is not plain breaks out\n"
GENERAL = BOTH.replace(WAY, WAY + "if true then break end\n")
ALLOWED = "if cost <= left and not grants then\n"
BY_SOURCES = GENERAL.replace(ALLOWED, "if false then\n")
"""As GENERAL, and `sources` says of each meter what pays for it, also where the allowance does."""
NOW_US_AT = slice(2, 10)  # of a reply: the two ways are not tried at one instant


EARLIER = "t r0 acme 0 api_calls:2"  # under the same key


async def outcome(
    books: Books,
    source: str,
    cost: int,
    before: bytes | None,
    mark: str = "1",
    held: str | None = None,
    version: int | str = "",
) -> tuple[Any, ...]:
    idempotency = f"{books.hash}/idempotency"
    await books.redis.delete(books.hash, books.stream, idempotency)
    if before is not None:
        await books.redis.restore(books.hash, 0, before)
    if held == "no string":
        await books.redis.rpush(idempotency, held)
    elif held is not None:
        await books.redis.set(idempotency, held, ex=100)
    keys = [books.hash, books.stream] + [idempotency] * (mark != "1")
    [reply] = await books.redis.eval(source, len(keys), *keys, "r1", "acme/u:7", version, mark, "api_calls", cost)
    if isinstance(reply, ResponseError):
        return str(reply), await books.redis.hgetall(books.hash), await books.texts()
    timeless = bytearray(reply)
    now_us = REPLY.unpack_from(timeless)[2]
    timeless[NOW_US_AT] = bytes(8)
    fields = await books.redis.hgetall(books.hash)
    for arrival in (b"tat", b"nt:k:keyNumberOne"):
        if arrival in fields:
            fields[arrival] = round(float(fields[arrival]) - now_us)
    return (
        bytes(timeless),
        fields,
        await books.texts(),
        await books.redis.dump(idempotency),
        await books.redis.ttl(idempotency),
    )


@pytest.mark.parametrize("cost", [0, 1, 7, 10, 999_999_999_999])
@pytest.mark.parametrize(
    "terms",
    [
        {},
        {"rate": RateLimit(7, 3600, 3)},
        {"rate": RateLimit(7, 3600, 3), "policy": OveragePolicy.METERED},
        {"meters": (MeterLimit("api_calls", 10**15),), "rate": RateLimit(1, 86_400, 2)},
        {"meters": (MeterLimit("tokens", 5),)},
        {"status": Status.SUSPENDED},
        {"status": Status.GRACE, "policy": OveragePolicy.METERED, "meters": (MeterLimit("api_calls", 10, 3),)},
        {"periods": "next"},
        {"periods": "over"},
        {"grants": "bonus"},
    ],
    ids=str,
)
async def test_both_ways_say_and_write_the_same(books: Books, terms: dict[str, Any], cost: int) -> None:
    assert BY_SOURCES != GENERAL != BOTH
    now = books.now
    named = {
        "next": (Period(now - 100, now), Period(now, now + 1000)),
        "over": (Period(now - 100, now),),
        "bonus": (Grant("bonus", "api_calls", 4, now + 600),),
    }
    terms = {
        name: named[value] if isinstance(value, str) and value in named else value for name, value in terms.items()
    }
    start = now if terms.get("periods") == named["next"] else books.start
    for usage in ((), (MeterUsage(start, "api_calls", 6, 2, 1),), (MeterUsage(start, "api_calls", 14),)):
        await books.redis.delete(books.hash)
        await books.ledger.seed(books.org, usage, {})
        await books.publish(**terms)
        before = await books.redis.dump(books.hash)
        said = (books.version, 0, f"{books.version} k:keyNumberOne @0.25,1000000 tokens=0:9")
        for mark, held, version in (
            *(("1", None, version) for version in ("", *said)),
            *((mark, held, "") for mark in ("k1", "u1") for held in (f"r0\n{EARLIER}", f"*\n{EARLIER}", "no string")),
            *((mark, None, version) for mark in ("k1", "u1") for version in ("", *said)),
        ):
            both = await outcome(books, BOTH, cost, before, mark, held, version)
            for source in (GENERAL, BY_SOURCES):
                assert both == await outcome(books, source, cost, before, mark, held, version), (mark, held, version)
