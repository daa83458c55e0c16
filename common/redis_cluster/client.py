"""redis-py's commands on a Cluster, for all code but the hot path: each goes to the server that holds its key.

A client of one server for each primary, made as for a Redis without a Cluster. So each of them has the same bounded
pool, certificates that follow their files, and repetitions, and a command that redis-py's own RedisCluster would repeat
although it may have been applied is not repeated here (docs/decisions/0057).
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, RedisError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from common.redis_closing import close_all, close_idle
from common.redis_cluster.topology import Address, Topology, View, newest, parse, slot_of, state_of
from quota.ledger import UnsupportedServer

log = structlog.get_logger()

ATTEMPTS: Final = 5
OTHERS_SECONDS: Final = 0.05
"""Once a majority has said who holds what, the others have so long: one that hangs holds nobody up."""
AGAIN_SECONDS: Final = 0.05  # after TRYAGAIN and CLUSTERDOWN
_WITHOUT_KEY: Final = frozenset(
    ("CLUSTER", "CONFIG", "DBSIZE", "INFO", "PING", "PUBLISH", "PUBSUB", "SCAN", "SCRIPT", "TIME", "WAIT", "WAITAOF")
)

Words = Sequence[Any]
"""A command as redis-py has it: its name may be two words in one."""
Command = tuple[Words, Mapping[str, Any]]
"""A command, and redis-py's options of it."""


class ClusterClient(Redis):
    """Commands with keys of several slots are refused by the server, and not split up."""

    def __init__(self, seeds: Sequence[Address], connect: Callable[[Address], Redis]) -> None:
        """`connect` makes the client of one server; it is closed with this one. `seeds` are asked who holds what, until
        one answers."""
        self._seeds = seeds
        self._connect = connect
        self._clients: dict[Address, Redis] = {}
        self._prepared: list[Callable[[Redis], None]] = []
        self._topology: Topology | None = None
        self._turn = -1  # of whom the next subscriber listens to
        self._known: Sequence[Address] = ()  # servers, by the topology that was asked last
        super().__init__(connection_pool=self.at(seeds[0]).connection_pool)

    def at(self, address: Address) -> Redis:
        """The client of one server."""
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = self._connect(address)
            for each in self._prepared:
                each(client)
        return client

    def prepare(self, each: Callable[[Redis], None]) -> None:
        """Does this to the clients of all servers, now and whenever another one is made."""
        self._prepared.append(each)
        for client in self._clients.values():
            each(client)

    def set_response_callback(self, command: str, callback: Any) -> None:
        super().set_response_callback(command, callback)
        self.prepare(lambda client: client.set_response_callback(command, callback))

    def twin(self) -> "ClusterClient":
        """Another client over the same connections, with callbacks of its own. Only this one closes them."""
        return ClusterClient(self._seeds, lambda address: Redis(connection_pool=self.at(address).connection_pool))

    async def topology(self) -> Topology:
        """As it was asked last. Raises redis-py's errors, UnsupportedServer."""
        return self._topology or await self.ask_topology()

    async def ask_topology(self) -> Topology:
        """Asked now. Slots may have no primary: the others go on. Raises redis-py's errors, UnsupportedServer."""
        views, error = await self._views(self._known or self._seeds)
        if not views and self._known:
            views, error = await self._views(self._seeds)
        if not views:
            raise error or RedisConnectionError("the Redis Cluster has no server")
        topology = newest(views).topology
        await self._forget_others(topology)
        self._topology = topology
        self._known = (*topology.primaries, *topology.replicas)
        return topology

    async def views(self) -> Mapping[Address, View]:
        """What each server says that answers, also one that is slow. Raises UnsupportedServer."""
        addresses = self._known or self._seeds
        found = await asyncio.gather(*(self._view(address) for address in addresses), return_exceptions=True)
        for each in found:
            if isinstance(each, UnsupportedServer) or not isinstance(each, View | RedisError):
                raise each
        return {at: view for at, view in zip(addresses, found, strict=True) if isinstance(view, View)}

    async def _views(self, addresses: Sequence[Address]) -> tuple[list[View], RedisError | None]:
        """Of a majority, and of those who answer soon after it; and why the first one did not of those who did not."""
        asked = {asyncio.create_task(self._view(address)): number for number, address in enumerate(addresses)}
        views, errors, waiting = list[View](), dict[int, RedisError](), set(asked)
        try:
            while waiting:
                enough = len(views) > len(addresses) // 2
                done, waiting = await asyncio.wait(
                    waiting, timeout=OTHERS_SECONDS if enough else None, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for task in done:
                    try:
                        views.append(task.result())
                    except UnsupportedServer:
                        raise
                    except RedisError as e:
                        errors[asked[task]] = e
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return views, errors[min(errors)] if errors else None

    async def _view(self, address: Address) -> View:
        async with self.at(address).pipeline(transaction=False) as pipeline:
            pipeline.execute_command("CLUSTER", "SLOTS")
            pipeline.execute_command("CLUSTER", "INFO")
            slots, info = await pipeline.execute()
        return View(parse(slots, address), *state_of(info))

    async def servers(self) -> list[Redis]:
        """The client of each primary, as the slots are spread now. Raises redis-py's errors."""
        return [self.at(address) for address in (await self.ask_topology()).primaries]

    def pubsub(self, **options: Any) -> Any:
        """Of one server: what is published at any of them is heard there. Another one each time."""
        addresses = self._known or self._seeds
        self._turn += 1
        return self.at(addresses[self._turn % len(addresses)]).pubsub(**options)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        key = key_of(args)
        for attempt in range(1, ATTEMPTS + 1):
            owner = _owner(self._topology, key) or _required(await self.ask_topology(), key)
            try:
                return await self.at(owner).execute_command(*args, **options)
            except MovedError:  # before AskError, of which redis-py derives it
                if attempt == ATTEMPTS:
                    raise
                await self.ask_topology()
            except AskError as e:
                asking: list[Command] = [(("ASKING",), {}), (args, options)]
                _, reply = await _run_together(self.at(Address(e.host, e.port)), asking, transaction=False)
                if not isinstance(reply, Exception):
                    return reply
                if attempt == ATTEMPTS or not isinstance(reply, TryAgainError):
                    raise reply from None
                await asyncio.sleep(AGAIN_SECONDS)
            except (TryAgainError, ClusterDownError):
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(AGAIN_SECONDS)
                await self.ask_topology()
            except (RedisConnectionError, ReadOnlyError):
                # Its own client has tried it twice. Where a replica has taken over, that one is given the command.
                if attempt == ATTEMPTS or _owner(await self.ask_topology(), key) in (owner, None):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _ClusterPipeline(self, transaction)

    async def execute_together(self, stack: Sequence[Command], transaction: bool) -> list[Any]:
        """The replies, errors among them. In a transaction all keys must lie in one slot."""
        topology = await self.topology()
        at: defaultdict[Address | None, list[int]] = defaultdict(list)
        for number, (words, _) in enumerate(stack):
            at[_owner(topology, key_of(words))].append(number)
        if transaction and len(at) > 1:
            raise RedisError("a transaction on a Redis Cluster has the keys of one slot")
        replies: list[Any] = [None] * len(stack)

        async def run(address: Address | None, numbers: list[int]) -> None:
            found: list[Any]
            try:
                found = await self._run_at(address, [stack[number] for number in numbers], transaction)
            except RedisError as e:  # of this server alone: the next look at the topology may know another one
                self._topology, found = None, [e] * len(numbers)
            for number, reply in zip(numbers, found, strict=True):
                replies[number] = reply

        await asyncio.gather(*(run(address, numbers) for address, numbers in at.items()))
        if not transaction:
            for number, reply in enumerate(replies):
                if isinstance(reply, MovedError | AskError | TryAgainError | ClusterDownError):
                    words, options = stack[number]
                    try:
                        replies[number] = await self.execute_command(*words, **options)
                    except RedisError as e:
                        replies[number] = e
        return replies

    async def _run_at(self, address: Address | None, stack: Sequence[Command], transaction: bool) -> list[Any]:
        """`address`: None where nobody was known that holds the keys. Raises redis-py's errors, UnsupportedServer."""
        if address is None:
            address = _required(await self.ask_topology(), key_of(stack[0][0]))
        return await _run_together(self.at(address), stack, transaction)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        for client in list(self._clients.values()):
            await client.aclose(close_connection_pool)

    def forget_topology(self) -> None:
        """The next command asks who holds its slot: the one that did may hang, and would be waited for."""
        self._topology = None

    async def disconnect_idle(self) -> None:
        """Closes idle connections to all servers."""
        for client in list(self._clients.values()):
            await close_idle(client.connection_pool)

    async def _forget_others(self, topology: Topology) -> None:
        """Servers that have left the Cluster."""
        known = {*topology.primaries, *topology.replicas, *self._seeds}
        for address in self._clients.keys() - known:
            await close_all(self._clients.pop(address).connection_pool)


class _ClusterPipeline(Pipeline):
    def __init__(self, client: ClusterClient, transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        stack: list[Command] = list(self.command_stack)
        try:
            replies = await self._client.execute_together(stack, bool(self.is_transaction)) if stack else []
        finally:
            await cast("Any", self).reset()
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies


def key_of(words: Words) -> bytes | str | None:
    """The first key of a command; None where it has none."""
    name, _, _ = str(words[0]).upper().partition(" ")
    if name in _WITHOUT_KEY:
        return None
    if name in ("EVAL", "EVALSHA"):
        return words[3] if int(words[2]) else None
    if name in ("XREAD", "XREADGROUP"):
        names = [str(word).upper() if not isinstance(word, bytes) else word.upper().decode() for word in words]
        return cast("bytes | str", words[names.index("STREAMS") + 1])
    return cast("bytes | str", words[1])


def _owner(topology: Topology | None, key: bytes | str | None) -> Address | None:
    """Whom a command with this key is sent to; None: nobody is known that holds it."""
    if topology is None:
        return None
    return next(iter(topology.primaries), None) if key is None else topology.owner(slot_of(key))


def _required(topology: Topology, key: bytes | str | None) -> Address:
    """Raises UnsupportedServer where nobody holds it."""
    owner = _owner(topology, key)
    if owner is None:
        raise UnsupportedServer(str(topology.uncovered))
    return owner


async def _run_together(client: Redis, stack: Sequence[Command], transaction: bool) -> list[Any]:
    async with client.pipeline(transaction=transaction) as pipeline:
        for words, options in stack:
            pipeline.execute_command(*words, **options)
        return await pipeline.execute(raise_on_error=False)
