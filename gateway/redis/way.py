"""How a server is asked for the generations of its shards, and where questions about it are put.

One server holds all shards, and one command reads their generations. A node of a Cluster has another way
(`gateway/cluster/node_way.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gateway.redis.connection import Connection, Lost
from quota import keys
from quota.calls.encoded import command

Generations = Mapping[int, bytes | None]
"""By shard."""
Looked = Callable[[Generations | Lost, bytes | None], None]
"""Called with what a server holds, and with the answer to a question."""


class Way(Protocol):
    async def generations(self, connection: Connection) -> Generations:
        """In a handshake. Raises Lost."""

    def look(self, connection: Connection, name: str, looked: Looked) -> None:
        """`name`: of a question that may have been answered."""

    def ask(self, connection: Connection, question: str) -> None:
        """Puts a question to the control plane. One that does not arrive is put again."""

    def probe(self) -> bytes:
        """A write that changes nothing, and is refused wherever a take would be."""


class OneServer:
    """It holds all shards."""

    __slots__ = ("_keys", "_shards")

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._keys = [keys.generation_key(shard) for shard in range(shards)]

    async def generations(self, connection: Connection) -> Generations:
        return dict(enumerate(await connection.ask("MGET", *self._keys)))

    def look(self, connection: Connection, name: str, looked: Looked) -> None:
        def on_reply(reply: Any) -> None:
            if isinstance(reply, Lost):
                looked(reply, None)
            else:
                *generations, answer = reply
                looked(dict(enumerate(generations)), answer)

        connection.send(command("MGET", *self._keys, keys.answer_key(name)), on_reply)

    def ask(self, connection: Connection, question: str) -> None:
        connection.send(command("RPUSH", keys.VOUCH, question), _ignore)

    def probe(self) -> bytes:
        return command("SET", keys.LAYOUT, self._shards, "NX")


def _ignore(reply: Any) -> None:
    """A question that does not arrive is put again."""
