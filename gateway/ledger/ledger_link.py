"""The way to Redis as those have it who charge: one link, or those to all servers of a Cluster."""

from collections.abc import Callable
from typing import Protocol

from gateway.ledger.receipts import Receipts
from gateway.ledger.receipts_keeper import Keeper
from gateway.ledger.takes import TakeWaiter
from gateway.redis.connection import Callback
from quota.calls.call import Call
from quota.calls.encoded import BOOKS_KEYS
from quota.recovery_message import RecoveryMessage


class ShardLink(Protocol):
    """The way to one shard."""

    @property
    def corrects(self) -> bool:
        """Whether a correction that is sent now may be applied."""

    def read(self, data: bytes, reply_count: int, callback: Callback) -> None:
        """Sends commands that change nothing, and are about this shard. The callback gets the list of their replies, or
        Lost. While no server may take they wait as long as a take does."""


class LedgerLink(Protocol):
    @property
    def down_reason(self) -> str:
        """Why takes are not sent, or were not sent last."""

    @property
    def receipts(self) -> Receipts: ...
    @property
    def accepts(self) -> bool:
        """Takes are sent now, of each shard."""

    @property
    def corrects(self) -> bool:
        """Whether a correction that is sent now may be applied."""

    @property
    def on_moved(self) -> list[Callable[[], None]]:
        """Called when another connection is there in place of one whose server could not take, and when other servers
        hold the shards."""

    @property
    def on_connected(self) -> list[Callable[[], None]]:
        """Called whenever another connection is there."""

    def of(self, shard: int) -> ShardLink:
        """The way to a shard."""

    def take(
        self, keys_bulk: bytes, argv_bulk: bytes, argv_count: int, waiter: TakeWaiter, key_count: int = BOOKS_KEYS
    ) -> None:
        """Queues one take, in parts of `quota/calls/encoded.py`: its KEYS and its ARGV, and how many these are."""

    def call(self, data: bytes, callback: Callback) -> None:
        """Sends one ready RESP command. The callback gets its reply (an error reply as Lost)."""

    def run(self, call: Call, callback: Callback) -> None:
        """Runs a script."""

    @property
    def receipts_keeper(self) -> Keeper: ...
    def recover(self, asked: RecoveryMessage) -> None:
        """The control plane puts together what Redis has lost, and asks what is known here."""

    def redis_ms(self) -> int:
        """Redis time now, as far as this gateway knows it: milliseconds since the epoch, or 0."""
