"""A link in its place among those of a Cluster: a script call has the takes of one shard, and what the server does not
hold any more waits for the one that does."""

from time import monotonic
from typing import Final, Protocol

from gateway.cluster.node_way import is_elsewhere
from gateway.ledger.takes import Read, SentTurn, Take, TakeSender, parts_of, script_call
from gateway.redis.connection import Connection
from quota.calls.encoded import TAKES_MAX

_ZEROS: Final = 11 * ord("0")


class Cluster(Protocol):
    def wait(self, take: Take, reason: str) -> None:
        """The take was not applied, since the server does not hold all keys of its shard."""

    def wait_read(self, read: Read, reason: str) -> None:
        """Likewise."""

    def look_now(self) -> None:
        """Who holds what may have changed."""


class NodePlace:
    __slots__ = ("_cluster",)

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def send(self, sender: TakeSender, connection: Connection, batch: list[Take]) -> None:
        by_shard: dict[int, list[Take]] = {}
        for take in batch:
            shard = shard_in(take[0])
            if shard in by_shard:
                by_shard[shard].append(take)
            else:
                by_shard[shard] = [take]
        calls = list(by_shard.values())
        if len(batch) > TAKES_MAX:
            calls = [part for takes in calls for part in parts_of(takes)]
        if calls:
            turn = SentTurn(sender, connection, calls, monotonic())
            connection.send_each(b"".join([script_call(takes) for takes in calls]), len(calls), turn)

    def redirects(self, error: str) -> bool:
        if not is_elsewhere(error):
            return False
        self._cluster.look_now()
        return True

    def wait(self, take: Take, reason: str) -> bool:
        if not is_elsewhere(reason):
            return False
        self._cluster.wait(take, reason)
        return True

    def wait_read(self, read: Read, reason: str) -> bool:
        if not is_elsewhere(reason):
            return False
        self._cluster.wait_read(read, reason)
        return True

    def on_away(self) -> None:
        self._cluster.look_now()


def shard_in(words: bytes) -> int:
    """Of the first key among RESP words that begin with `qg:{qNN}`."""
    at = words.index(b"{q") + 2
    return 10 * words[at] + words[at + 1] - _ZEROS
