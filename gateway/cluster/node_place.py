"""A link in its place among those of a Cluster: a script call has the takes of one shard, and what the server does not
hold any more waits for the one that does."""

from collections import defaultdict
from typing import Final, Protocol

from gateway.ledger.place import MakeCallback
from gateway.ledger.takes import Take, parts_of
from gateway.redis.connection import Callback, Connection

REDIRECTED: Final = ("MOVED ", "ASK ", "TRYAGAIN ")


class Cluster(Protocol):
    def wait(self, take: Take, reason: str) -> None:
        """The take was not applied, since the server does not hold all keys of its shard."""

    def look_now(self) -> None:
        """Who holds what may have changed."""


class NodePlace:
    __slots__ = ("_cluster",)

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def send(self, connection: Connection, batch: list[Take], callback: MakeCallback, *, keyed: bool) -> None:
        by_shard: defaultdict[int, list[Take]] = defaultdict(list)
        for take in batch:
            by_shard[shard_in(take[0])].append(take)
        sent: list[tuple[bytes, Callback]] = []
        for takes in by_shard.values():
            for part, encoded in parts_of(takes, keyed=keyed):
                sent.append((encoded.by_digest(), callback(part, encoded)))
        connection.send_together(sent)

    def redirects(self, error: str) -> bool:
        if not error.startswith(REDIRECTED):
            return False
        self._cluster.look_now()
        return True

    def wait(self, take: Take, reason: str) -> bool:
        if not reason.startswith(REDIRECTED):
            return False
        self._cluster.wait(take, reason)
        return True

    def on_away(self) -> None:
        self._cluster.look_now()


def shard_in(words: bytes) -> int:
    """Of the first key among RESP words that begin with `qg:{qNN}`."""
    at = words.index(b"{q") + 2
    return int(words[at : at + 2])
