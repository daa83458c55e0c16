"""How one server of a Cluster is asked for the generations of its shards, each of which lies in another slot."""

from collections.abc import Callable
from typing import Any, Final

from gateway.redis.connection import Callback, Connection, Lost
from gateway.redis.way import Generations, Looked
from quota import keys
from quota.calls.encoded import command

NOT_SERVED: Final = "CLUSTERDOWN Hash slot not served"
REDIRECTED: Final = ("MOVED ", "ASK ", "TRYAGAIN ", NOT_SERVED)

Call = Callable[[bytes, Callback], None]
"""Sends a ready command to the server that holds its key."""
Gone = Callable[[int, str], None]
"""No server has a shard's slot, and what says so."""


class NodeWay:
    __slots__ = ("_call", "_gone", "shards")

    def __init__(self, shards: list[int], call: Call, gone: Gone) -> None:
        """`gone` takes the shard from `shards`."""
        self.shards = shards
        """Those that this server holds and is asked for. The list changes."""
        self._call = call
        self._gone = gone

    async def generations(self, connection: Connection) -> Generations:
        found = dict[int, bytes | None]()
        for shard in list(self.shards):
            try:
                found[shard] = await connection.ask("GET", keys.generation_key(shard))
            except Lost as e:
                if not str(e).startswith(NOT_SERVED):  # else the topology is asked, and this server is dialed again
                    raise
                self._gone(shard, str(e))  # the others go on
        return found

    def look(self, connection: Connection, name: str, looked: Looked) -> None:
        shards = list(self.shards)

        def on_answer(answer: Any) -> None:
            if not shards:
                looked({}, None)
                return
            asked = b"".join(command("GET", keys.generation_key(shard)) for shard in shards)
            known = None if isinstance(answer, Lost) else answer

            def on_replies(replies: Any) -> None:
                looked(replies if isinstance(replies, Lost) else dict(zip(shards, replies, strict=True)), known)

            connection.send_several(asked, len(shards), on_replies)

        self._call(command("GET", keys.answer_key(name)), on_answer)

    def ask(self, connection: Connection, question: str) -> None:
        self._call(command("RPUSH", keys.VOUCH_IN_CLUSTER, question), _ignore)

    def probe(self) -> bytes:
        return command("SET", keys.probe_key(self.shards[0] if self.shards else 0), 1, "NX")


def is_elsewhere(error: str) -> bool:
    """Whether it says that this server does not hold the keys, or not all of them."""
    return error.startswith(REDIRECTED)


def _ignore(reply: Any) -> None:
    """A question that does not arrive is put again."""
