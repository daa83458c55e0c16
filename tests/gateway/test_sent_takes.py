"""What a link writes to Redis for the takes of one turn is the call that everyone else sends, byte for byte."""

import asyncio
import socket

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.link import Link
from gateway.metering.costs import price_of
from gateway.redis.connection import Connection, Lost, ReplyTimes
from quota.calls.encoded import (
    BOOKS_KEYS,
    IDEMPOTENT_KEYS,
    TAKE_ARGV,
    TAKES_MAX,
    books_bulk,
    by_digest,
    idempotency_bulk,
    keyed,
    principal_bulk,
)
from quota.calls.take import Take, take_call
from quota.keys import SHARDS_DEFAULT

takes = st.builds(
    lambda number, org, charges, name: Take(org, f"{number:020d}", charges, name),
    st.integers(0, 10**20 - 1),
    st.sampled_from(["acme", "globex", "a|b:c@d.e", "o" * 128]),
    st.sampled_from([{"api_calls": 1}, {"tokens": 0}, {"api_calls": 1, "tokens": 10**12}]),
    st.none() | st.sampled_from(["k" * 22, "u.k"]),
)


class Waiter:
    def on_take(self, reply: bytes) -> None:
        raise AssertionError("nobody answers here")

    def on_take_lost(self, lost: Lost) -> None:
        pass


async def sent(some: list[Take]) -> bytes:
    """What the link writes for takes that come in one turn of the loop."""
    loop = asyncio.get_running_loop()
    ours, redis = socket.socketpair()
    redis.setblocking(False)
    link = Link(loop, "redis://127.0.0.1:1", SHARDS_DEFAULT, ReplyTimes(30, 30))
    connection = Connection(loop, link, 30)
    await loop.create_connection(lambda: connection, sock=ours)
    link.connection = link._taking = connection
    for take in some:
        price, keys_bulk = price_of(dict(take.charges)), books_bulk(take.org, SHARDS_DEFAULT)
        charge_bulk, key_count = price.charge_bulk, BOOKS_KEYS
        if take.idempotency is not None:
            keys_bulk += idempotency_bulk(take.org, SHARDS_DEFAULT, take.idempotency)
            charge_bulk, key_count = keyed(charge_bulk), IDEMPOTENT_KEYS
        argv = TAKE_ARGV % (take.request_id.encode(), principal_bulk(take.org), charge_bulk)
        link.take(keys_bulk, argv, price.charge_words, Waiter(), key_count)
    expected, data = calls_of(some), b""
    async with asyncio.timeout(30):
        while len(data) < len(expected):
            data += await loop.sock_recv(redis, len(expected) + 1)
    connection.abort("the test is over")
    redis.close()
    return data


def calls_of(some: list[Take]) -> bytes:
    parts = [some[at : at + TAKES_MAX] for at in range(0, len(some), TAKES_MAX)]
    return b"".join(by_digest(take_call(part, SHARDS_DEFAULT)) for part in parts)


@settings(max_examples=60, deadline=None)
@given(st.lists(takes, min_size=1, max_size=2 * TAKES_MAX + 1))
def test_the_takes_of_one_turn_are_sent_as_the_calls_of_everyone_else(some: list[Take]) -> None:
    assert asyncio.run(sent(some)) == calls_of(some)
