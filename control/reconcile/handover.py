"""Shards that one server of a Cluster handed over to another while both lived, so that nothing of them was lost.

A slot that is migrated takes its keys along, and the shard's generation still names the server before. So does the
generation on a replica that took over, and that one may lack the last writes. What tells them apart: a server that has
been a primary with the same replication id at the last look and now was no replica in between
(https://valkey.io/topics/replication/ "Replication ID explained"). If that is so of both servers, and the shard was on
the first one then, the first one has handed it over itself.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from control.reconcile.epochs import Front, Newest

LOOKED_SECONDS: Final = 5.0  # a look that is older proves nothing: several servers may have been in front since


class Handover:
    def __init__(self) -> None:
        self._held: dict[int, str] = {}  # by shard: the server that held it, and was vouched for
        self._histories: dict[str, str] = {}  # by server
        self._agreed_at = float("-inf")  # loop time

    def agreed(self, fronts: Sequence[Front]) -> None:
        """All these servers were vouched for, just now."""
        self._held = {shard: front.server for front in fronts for shard in front.generations}
        self._histories = {front.server: front.history for front in fronts if front.history}
        self._agreed_at = asyncio.get_running_loop().time()

    def moved(self, front: Front, fronts: Sequence[Front], newest: Newest) -> Front | None:
        """The server with those of its shards that were handed over to it; None: there are none. `fronts` are all that
        answer."""
        if asyncio.get_running_loop().time() - self._agreed_at > LOOKED_SECONDS:
            return None
        unbroken = {each.server for each in fronts if self._histories.get(each.server) == each.history}
        if front.server not in unbroken:
            return None
        moved = {
            shard
            for shard, text in front.generations.items()
            if text is not None
            and newest[shard].server == self._held.get(shard)
            and newest[shard].server in unbroken
            and newest[shard].server != front.server
            and text.startswith(f"{newest[shard].server}:{newest[shard].number}:")
        }
        return front.only(moved) if moved else None
