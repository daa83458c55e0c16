"""Takes of shards that no server of a Cluster may take now: they wait, but not for ever."""

import asyncio

import pytest

from gateway.cluster.links import _key_in
from gateway.cluster.node_place import shard_in
from gateway.cluster.waiting import WaitingShard
from gateway.redis.connection import Lost
from quota import keys
from quota.calls.encoded import books_bulk, command, idempotency_bulk


class Waiter:
    def __init__(self) -> None:
        self.lost: list[str] = []

    def on_take(self, reply: bytes) -> None: ...

    def on_take_lost(self, lost: Lost) -> None:
        assert lost.applied is False
        self.lost.append(str(lost))


async def test_a_take_of_a_shard_that_moves_waits_so_long_as_is_stated_and_no_longer() -> None:
    waiter, begun = Waiter(), list[None]()
    waiting = WaitingShard(asyncio.get_running_loop(), 0.05, lambda: begun.append(None))
    waiting.take(b"", b"", 0, waiter)
    assert len(waiter.lost) == 1, "it has not begun"
    waiting.begin("it moves")
    waiting.take(b"", b"", 0, waiter)
    assert (len(waiter.lost), len(begun)) == (1, 1)
    async with asyncio.timeout(30):
        while len(waiter.lost) < 2:  # noqa: ASYNC110 - a timer calls it
            await asyncio.sleep(0.005)
    waiting.begin("it moves")
    waiting.take(b"", b"", 0, waiter)
    assert waiter.lost == ["no server of the cluster is known that holds the shard", "it moves", "it moves"]


async def test_takes_that_waited_are_sent_in_their_order() -> None:
    waiting = WaitingShard(asyncio.get_running_loop(), 60, lambda: None)
    waiting.begin("it moves")
    waiter = Waiter()
    for number in range(3):
        waiting.take(b"", b"%d" % number, 0, waiter)
    assert [take[1] for take in waiting.release()] == [b"0", b"1", b"2"]
    assert waiting.release() == []
    waiting.expire()
    assert waiter.lost == []


@pytest.mark.parametrize("org", ["acme", "a:b|c", "x" * 128])
@pytest.mark.parametrize("shards", [1, 32, 100])
def test_the_shard_of_a_take_is_read_from_its_keys(org: str, shards: int) -> None:
    words = books_bulk(org, shards)
    assert shard_in(words) == keys.shard_of(org, shards)
    assert shard_in(words + idempotency_bulk(org, shards, "k")) == keys.shard_of(org, shards)


def test_a_ready_command_goes_where_its_key_is() -> None:
    assert _key_in(command("RPUSH", keys.RECEIPTS, b"t r1\r\n$3\r\nx")) == keys.RECEIPTS.encode()
    assert _key_in(command("HSET", "k", "f", "v")) == b"k"
