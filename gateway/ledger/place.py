"""What is different about a link that leads to one server of a Cluster."""

from typing import Protocol

from gateway.ledger.takes import Read, Take, TakeSender
from gateway.redis.connection import Connection


class Place(Protocol):
    def send(self, sender: TakeSender, connection: Connection, batch: list[Take]) -> None:
        """All takes of one turn, in script calls of one shard each."""

    def redirects(self, error: str) -> bool:
        """Whether the error says that this server does not hold the keys: it is not about the server."""

    def wait(self, take: Take, reason: str) -> bool:
        """Whether a take that was not applied waits for the server that holds its shard."""

    def wait_read(self, read: Read, reason: str) -> bool:
        """Likewise of a read that got no reply."""

    def on_away(self) -> None:
        """The connection has ended, or none comes about: another server may have taken over."""
