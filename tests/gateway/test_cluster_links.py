"""Takes of shards that no server of a Cluster may take now: they wait, but not for ever."""

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import pytest

from gateway.cluster.kept import ClusterReceiptsKeeper
from gateway.cluster.links import _key_in
from gateway.cluster.node_place import shard_in
from gateway.cluster.waiting import WaitingShard
from gateway.ledger.receipts import REPORTED_AT_ONCE, Receipts
from gateway.redis.connection import Callback, Lost
from gateway.settings.intervals import DEFAULT_INTERVALS
from quota import keys
from quota.calls.encoded import books_bulk, command, idempotency_bulk
from quota.recovery_message import RecoveryMessage


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


async def test_what_is_read_before_a_take_waits_for_its_shard_as_a_take_does_and_no_longer() -> None:
    replies = list[Any]()
    waiting = WaitingShard(asyncio.get_running_loop(), 0.05, lambda: None)
    waiting.read(b"", 2, replies.append)
    assert [str(each) for each in replies] == ["no server of the cluster is known that holds the shard"]
    waiting.begin("it moves")
    waiting.read(b"one", 2, replies.append)
    assert [data for data, _, _ in waiting.release_reads()] == [b"one"]
    waiting.read(b"two", 2, replies.append)
    async with asyncio.timeout(30):
        while len(replies) < 2:  # noqa: ASYNC110 - a timer calls it
            await asyncio.sleep(0.005)
    assert (str(replies[1]), replies[1].applied) == ("it moves", False)
    assert waiting.release_reads() == []


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


class AnsweringLink:
    """To a server that is vouched for in epoch 1, and whose clock is at 100 seconds."""

    vouched = True
    epochs: Mapping[int, int] = {0: 1, 1: 1}

    def __init__(self, shards: list[int], written_ms: int) -> None:
        self.shards, self._written = shards, b"1 %d" % written_ms

    @property
    def connection(self) -> "AnsweringLink":
        return self

    @property
    def server(self) -> "AnsweringLink":
        return self

    def look_again(self, generations: Mapping[int, bytes | None]) -> None:
        assert list(generations) == self.shards

    def send_several(self, data: bytes, reply_count: int, callback: Callable[[object], None]) -> None:
        callback([[b"100", b"0"], *[self._written, b"run:1:n"] * (reply_count // 2)])


class AnsweringLinks:
    def __init__(self, *links: AnsweringLink) -> None:
        self.nodes = links
        self.node_ways = {link: link for link in links}
        self.sent: list[bytes] = []
        self.lost_at = 0  # of what is sent

    def call(self, data: bytes, callback: Callback) -> None:
        self.sent.append(data)
        callback(Lost("MOVED", applied=False) if len(self.sent) == self.lost_at else 1)


@pytest.mark.parametrize(
    ("shards", "written_ms", "is_known"),
    [
        (([0], [1]), 99_000, True),
        (([0], []), 99_000, False),  # shard 1 waits
        (([0], [1]), 101_000, False),  # the clock went back since
    ],
)
async def test_receipts_are_taken_for_written_only_where_that_is_known_of_all_shards(
    shards: tuple[list[int], list[int]], written_ms: int, is_known: bool
) -> None:
    receipts, loop = Receipts(), asyncio.get_running_loop()
    links = AnsweringLinks(AnsweringLink(shards[0], 99_500), AnsweringLink(shards[1], written_ms))
    keeper = ClusterReceiptsKeeper(links, loop, 2, receipts, None, DEFAULT_INTERVALS)
    now = monotonic()
    receipts.add(now - 10, [b"reply"])
    for seconds_ago in (5, 0):
        keeper.ask(now - seconds_ago)
    assert receipts.confirms is is_known
    assert (receipts.unwritten_seconds(now) < 6) is is_known


@pytest.mark.parametrize("lost_at", [0, 1, 2])
async def test_a_gateway_says_that_it_has_told_all_receipts_only_when_all_of_them_arrived(lost_at: int) -> None:
    receipts, links = Receipts(), AnsweringLinks()
    links.lost_at = lost_at
    keeper = ClusterReceiptsKeeper(links, asyncio.get_running_loop(), 2, receipts, None, DEFAULT_INTERVALS)
    take = b"\x01\x00" + bytes(56) + b"t %020x acme 1793491200 api_calls:1"
    receipts.add(monotonic(), [take % number for number in range(REPORTED_AT_ONCE + 1)])
    keeper.report(RecoveryMessage("n"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(links.sent) == (lost_at or 3)
    assert (b"end n" in links.sent[-1]) is (lost_at == 0)
