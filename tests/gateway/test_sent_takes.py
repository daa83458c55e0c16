"""What a link writes to Redis for the takes of one turn is the call that everyone else sends, byte for byte."""

import asyncio
import socket
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cluster.node_place import NodePlace
from gateway.ledger.link import Link
from gateway.ledger.takes import Read
from gateway.ledger.takes import Take as SentTake
from gateway.metering.costs import price_of
from gateway.redis.connection import Connection, Lost, ReplyTimes
from quota.calls.encoded import (
    BOOKS_KEYS,
    IDEMPOTENT_KEYS,
    REQUEST_ID_BYTES,
    TAKE_ARGV,
    TAKES_MAX,
    books_bulk,
    by_digest,
    idempotency_bulk,
    keyed,
    principal_bulk,
)
from quota.calls.take import Take, take_call
from quota.keys import SHARDS_DEFAULT, shard_of

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


class Cluster:
    """That a link to one of its servers belongs to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[object, str]] = []
        self.looked = 0

    def wait(self, take: SentTake, reason: str) -> None:
        self.waiting.append((take[3], reason))

    def wait_read(self, read: Read, reason: str) -> None:
        raise AssertionError("nothing is read")

    def look_now(self) -> None:
        self.looked += 1


async def linked(place: NodePlace | None = None) -> tuple[Link, Connection, socket.socket]:
    """A link with its connection, and Redis' end of it."""
    loop = asyncio.get_running_loop()
    ours, redis = socket.socketpair()
    redis.setblocking(False)
    link = Link(loop, "redis://127.0.0.1:1", SHARDS_DEFAULT, ReplyTimes(30, 30), place=place)
    connection = Connection(loop, link, 30)
    await loop.create_connection(lambda: connection, sock=ours)
    link.connection = link.taking = connection
    return link, connection, redis


async def sent(some: list[Take], expected: bytes, place: NodePlace | None = None) -> bytes:
    """What the link writes for takes that come in one turn of the loop."""
    loop = asyncio.get_running_loop()
    link, connection, redis = await linked(place)
    for take in some:
        price, keys_bulk = price_of(dict(take.charges)), books_bulk(take.org, SHARDS_DEFAULT)
        charge_bulk, key_count = price.charge_bulk, BOOKS_KEYS
        if take.idempotency is not None:
            keys_bulk += idempotency_bulk(take.org, SHARDS_DEFAULT, take.idempotency)
            charge_bulk, key_count = keyed(charge_bulk), IDEMPOTENT_KEYS
        argv = TAKE_ARGV % (take.request_id.encode(), principal_bulk(take.org), charge_bulk)
        link.take(keys_bulk, argv, price.charge_words, Waiter(), key_count)
    data = b""
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
    assert asyncio.run(sent(some, calls_of(some))) == calls_of(some)


@settings(max_examples=60, deadline=None)
@given(st.lists(takes, min_size=1, max_size=2 * TAKES_MAX + 1))
def test_the_takes_of_one_turn_are_sent_to_a_server_of_a_cluster_by_shards(some: list[Take]) -> None:
    by_shard: dict[int, list[Take]] = {}
    for take in some:
        by_shard.setdefault(shard_of(take.org, SHARDS_DEFAULT), []).append(take)
    expected = b"".join(calls_of(of_shard) for of_shard in by_shard.values())
    assert asyncio.run(sent(some, expected, NodePlace(Cluster()))) == expected


class Asking:
    """One take, and its answer."""

    def __init__(self, link: Link, org: str) -> None:
        self.said: bytes | Lost | None = None
        price = price_of({"api_calls": 1})
        argv = TAKE_ARGV % (b"0" * REQUEST_ID_BYTES, principal_bulk(org), price.charge_bulk)
        link.take(books_bulk(org, SHARDS_DEFAULT), argv, price.charge_words, self)

    def on_take(self, reply: bytes) -> None:
        self.said = reply

    def on_take_lost(self, lost: Lost) -> None:
        self.said = lost


ORGS = ("acme", "globex", "initech")


async def received(redis: socket.socket) -> bytes:
    async with asyncio.timeout(30):
        return await asyncio.get_running_loop().sock_recv(redis, 2**16)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110 - the link rings no bell
            await asyncio.sleep(0)


async def test_takes_of_several_shards_get_their_own_replies_whatever_becomes_of_the_others_of_their_turn() -> None:
    assert len({shard_of(org, SHARDS_DEFAULT) for org in ORGS}) == len(ORGS)
    cluster = Cluster()
    link, connection, redis = await linked(NodePlace(cluster))
    first, moved, last = (Asking(link, org) for org in ORGS)
    await received(redis)
    redis.sendall(b"*1\r\n$1\r\na\r\n-MOVED 7 127.0.0.1:2\r\n*1\r\n$1\r\nc\r\n")
    await until(lambda: last.said is not None)
    assert (first.said, moved.said, last.said) == (b"a", None, b"c")
    assert cluster.waiting == [(moved, "MOVED 7 127.0.0.1:2")]
    assert cluster.looked
    assert link.batches == 2
    connection.abort("the test is over")
    redis.close()


async def test_takes_of_several_shards_are_sent_again_with_the_script_where_a_server_has_forgotten_it() -> None:
    link, connection, redis = await linked(NodePlace(Cluster()))
    asking = [Asking(link, org) for org in ORGS]
    await received(redis)
    redis.sendall(b"-NOSCRIPT no such script\r\n" * len(ORGS))
    data = b""
    while data.count(b"$4\r\nEVAL\r\n") < len(ORGS):
        data += await received(redis)
    redis.sendall(b"".join(b"*1\r\n$1\r\n%d\r\n" % number for number in range(len(ORGS))))
    await until(lambda: asking[-1].said is not None)
    assert [each.said for each in asking] == [b"0", b"1", b"2"]
    connection.abort("the test is over")
    redis.close()


async def test_takes_of_all_shards_are_lost_with_their_connection() -> None:
    link, connection, redis = await linked(NodePlace(Cluster()))
    asking = [Asking(link, org) for org in ORGS]
    await received(redis)
    redis.sendall(b"*1\r\n$1\r\na\r\n")
    await until(lambda: bool(connection.read_at))
    connection.abort("Redis is gone")
    assert asking[0].said == b"a"
    assert [str(each.said) for each in asking[1:]] == ["Redis is gone"] * 2
    redis.close()
