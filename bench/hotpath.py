"""The gateway's own work for one admitted request, without sockets: Python and parsers, microseconds.

    python -m bench.hotpath [--varied] [--keys] [--cluster] [--profile] [--requests N]

The benchmark hands the gateway the clients' bytes, plays back a batch's reply and the upstream's answers, and takes the
answers for the clients. It leaves out what the kernel and the event loop add: two reads, two writes, and a share of the
batched Redis call.

By default each client repeats one head, which the gateway recognizes. With `--varied` the requests are the varied
traffic of bench.peers, the same bytes in the same order (bench/traffic.py). To make a request takes 13,000
instructions, which are counted, too. With `--keys` they carry API keys in place of tokens. Before anything is measured,
each principal is met once: it is looked at in Redis then, and that is not counted. With `--cluster` Redis is three
primaries, which have the shards in turn, so that a turn's takes are several script calls and three writes (varied
requests alone lie in several shards).

The machine's noise is larger than most changes, but instructions are exact. Count them in two runs of different length,
so that the start cancels out:

    valgrind --tool=callgrind --callgrind-out-file=/dev/null python -m bench.hotpath --requests 160
    valgrind --tool=callgrind --callgrind-out-file=/dev/null python -m bench.hotpath --requests 1600

Each run makes 7 rounds. The instructions of one request are the difference of the two numbers that valgrind prints
(`Collected`), divided by 7 * (1600 - 160).

With `--record 0.01 --collector URL` one request in a hundred becomes spans, and the work of the exporter's thread is
counted, too. The varied traffic's own flags are not followed then, since each of its requests has one. What that costs
bench/recording.py measures beside a worker that records nothing.
"""

import argparse
import asyncio
import cProfile
import gc
import pstats
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import hiredis
import uvloop

from bench.traffic import ISSUER, ORGS, SECRET, api_key, key_id, token, varied
from common.redis_cluster.topology import Address
from compiled import finder
from gateway.client.client_connection import ClientConnection
from gateway.cluster.node_way import NodeWay
from gateway.ledger.link import Link
from gateway.ledger.takes import SentTurn
from gateway.process.worker import Worker
from gateway.redis.connection import Connection
from gateway.settings.root import GatewaySettings
from gateway.upstream.connection.upstream_connection import UpstreamConnection
from quota.access import KeyRecord, digest16, pack_record
from quota.calls.encoded import BOOKS_KEYS, bulk
from quota.periods import monthly_periods
from quota.wire import BALANCE, HEAD, REPLY, Verdict

ROUNDS, REQUESTS = 7, 20_000
PRIMARIES = 3
BATCH = 16  # requests in one loop turn, as at 64 connections
TIMEOUT_SECONDS = 3600  # of Redis; nothing here waits for it
REPEATED_ORG = "acme"


class Transport:
    """A socket that is always writable and keeps nothing."""

    def __init__(self) -> None:
        self.last = b""

    def write(self, data: bytes) -> None:
        self.last = data

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 50_000) if name == "peername" else default

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Redis(Transport):
    """It answers what a gateway asks of a principal, and admits every take."""

    def __init__(self, take_reply: bytes) -> None:
        super().__init__()
        self._commands = hiredis.Reader()
        self._take_reply = take_reply
        self._orgs = {digest16(api_key(org)): org for org in (*ORGS, REPEATED_ORG)}

    def write(self, data: bytes) -> None:
        self.last = data
        self._commands.feed(data)

    def replies(self) -> bytes:
        replies = b""
        while (command := self._commands.gets()) is not False:
            replies += b"".join(self._answer(*command))
        return replies

    def _answer(self, name: bytes, *words: bytes) -> Iterator[bytes]:
        match name:
            case b"MGET":
                yield b"*3\r\n" + bulk(b"generation", b"generation", self._orgs[words[2][-16:]])
            case b"HMGET" if words[1] == b"e":  # the entitlement, of an organization that is in no shadow
                yield b"*2\r\n" + bulk(HEAD.pack(1, 1, 0, 0, 0, 0, 0, 0, 0)) + b"$-1\r\n"
            case b"HMGET":
                yield b"*%d\r\n" % (len(words) - 1)
                for field in words[1:]:
                    org = self._orgs.get(field[1:]) if field.startswith(b"k") else None
                    yield b"$-1\r\n" if org is None else bulk(pack_record(KeyRecord(key_id(org))))
            case _:
                takes = int(words[1]) // BOOKS_KEYS
                yield b"*%d\r\n" % takes + bulk(self._take_reply) * takes


def settings(
    telemetry: Mapping[str, Any] | None = None, *, logs: bool = True, cluster: bool = False
) -> GatewaySettings:
    """`logs`: whether there is an access log."""
    return GatewaySettings.model_validate(
        {
            "redis": {"url": "redis+cluster://127.0.0.1:1" if cluster else "redis://127.0.0.1:1/0"},
            "auth": {"algorithms": ["HS256"], "secret": SECRET, "issuer": ISSUER},
            "upstreams": {"api": {"url": "http://127.0.0.1:1"}},
            "access_log": {"path": "/dev/null", "enabled": logs},
            "telemetry": telemetry or {},
            "timeouts": {"idle_seconds": 3600},  # a connection waits while another one has its turn
            "routes": [
                {"path": "/", "upstream": "api"},
                {"path": "/v1/chat", "upstream": "api", "meters": {"api_calls": 1, "tokens": 10}},
                {"path": "/healthz", "upstream": "api", "exempt": True},
            ],
        }
    )


def repeated(credential: str) -> Iterator[bytes]:
    """All requests, with one head."""
    return repeat(
        b"GET /v1/things?limit=10 HTTP/1.1\r\nHost: api.example.com\r\n"
        b"Authorization: Bearer " + credential.encode() + b"\r\n"
        b"User-Agent: bench/1\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n\r\n"
    )


ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: 64\r\nConnection: keep-alive\r\n\r\n" + b"x" * 64
)


class Playback:
    """A worker, and all whom it talks to."""

    def __init__(self, gateway_settings: GatewaySettings, sent: Iterator[bytes], principals: int) -> None:
        """In a running loop. Each of the first so many requests is of a principal that was not met before."""
        worker = self.worker = Worker(gateway_settings, asyncio.get_running_loop())
        period = monthly_periods(0, time.time(), 1)[0]
        reply = (
            REPLY.pack(Verdict.ADMITTED, 0, time.time() * 1e6, period.start, period.end, 0)
            + BALANCE.pack(10**9, 10**9 - 1, 0)
            + b"t 00000000000000000000 acme 1793491200 api_calls:1"
        )
        self._links = self._servers()
        redis = {link: Redis(reply) for link in self._links}
        for link, asked in redis.items():
            connection = link.connection = link.taking = Connection(worker.loop, link, TIMEOUT_SECONDS)
            connection.connection_made(asked)  # type: ignore[arg-type]  # all that is used of it
        self.sent = sent
        self._clients, self._upstreams = self._peers()
        self._replies = [b"*%d\r\n" % takes + bulk(reply) * takes for takes in range(BATCH + 1)]
        for _ in range(-(-principals // BATCH)):
            for client in self._clients:
                client.data_received(next(sent))
            while answers := [(link.connection, answer) for link in self._links if (answer := redis[link].replies())]:
                for answering, answer in answers:
                    assert answering is not None  # noqa: S101 - each link has one
                    answering.data_received(answer)
                for link in self._links:
                    link._flush()
            for upstream in self._upstreams:
                upstream.data_received(ANSWER)
        for link in self._links:
            link.connection._transport = Transport()  # type: ignore[union-attr, assignment]  # takes alone are asked

    def _servers(self) -> list[Link]:
        """A link to each server of Redis."""
        links = self.worker.link
        if isinstance(links, Link):
            return [links]
        made = []
        for port in range(1, PRIMARIES + 1):
            way = NodeWay([], links.call)
            link = links._make(Address("127.0.0.1", port), way, links)
            links.node_ways[link] = way
            made.append(link)
        for shard in range(len(links._ways)):
            links._ways[shard] = made[shard % PRIMARIES]
        return made

    def _peers(self) -> tuple[list[ClientConnection], list[UpstreamConnection]]:
        clients, upstreams = [], []
        pool = next(iter(self.worker._pools.values()))
        state = SimpleNamespace(connections=set(), tasks=set(), default_headers=[], total_requests=0)
        for _ in range(BATCH):
            client = ClientConnection(SimpleNamespace(), state, {"worker": self.worker})  # type: ignore[arg-type]  # all that is used of it
            client.connection_made(Transport())  # type: ignore[arg-type]  # all that is used of it
            clients.append(client)
            upstream = UpstreamConnection(pool)
            upstream.connection_made(Transport())  # type: ignore[arg-type]  # all that is used of it
            upstreams.append(upstream)
            pool._open += 1
            pool.release(upstream)
        return clients, upstreams

    def one_turn(self) -> None:
        """A request of each client."""
        requests = self.sent
        for client in self._clients:
            client.data_received(next(requests))
        for link in self._links:
            link._flush()
        for link in self._links:
            connection = link.connection
            assert connection is not None  # noqa: S101 - each link has one
            for sent, _ in list(connection._pending)[:1]:
                calls = sent._calls if isinstance(sent, SentTurn) else [sent.takes]  # type: ignore[attr-defined]  # SentTakes
                connection.data_received(b"".join([self._replies[len(takes)] for takes in calls]))
        for upstream in self._upstreams:
            upstream.data_received(ANSWER)

    def check(self) -> None:
        """Ends the benchmark unless a request is admitted and answered."""
        self.one_turn()
        answer = self._clients[0].transport.last  # type: ignore[attr-defined]  # it is ours
        if not answer.startswith(b"HTTP/1.1 200 OK") or b"RateLimit:" not in answer:
            raise SystemExit(f"The gateway's answer is not the expected one: {answer!r}")


def settle_garbage() -> None:
    """As a worker does when it has started. A full collection in one of two runs would pass for requests' work."""
    gc.collect()
    gc.freeze()


async def measure(
    profile: bool, requests: int, sent: Iterator[bytes], principals: int, gateway_settings: GatewaySettings
) -> None:
    played = Playback(gateway_settings, sent, principals)
    settle_garbage()
    played.check()
    time_turns(played.one_turn, requests // BATCH, profile=profile)
    if played.worker.spans is not None:
        played.worker.spans.close()


def time_turns(one_turn: Callable[[], None], turns: int, *, profile: bool) -> None:
    profiler = cProfile.Profile() if profile else None
    if profiler:
        profiler.enable()
    costs = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(turns):
            one_turn()
        costs.append((time.process_time() - began) / (turns * BATCH) * 1e6)
    if profiler:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
    best = f"median of {ROUNDS}; best {min(costs):.1f}"
    print(f"{statistics.median(costs):.1f} us a request ({best}), {finder.install()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--varied", action="store_true", help="the traffic of bench.peers' headline")
    parser.add_argument("--keys", action="store_true", help="API keys in place of tokens")
    parser.add_argument("--cluster", action="store_true", help="three primaries, which share the shards")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="in each round")
    parser.add_argument("--record", type=float, help="the share of requests that become spans")
    parser.add_argument("--collector", help="which gets them, by OTLP: http://127.0.0.1:4318")
    options = parser.parse_args()
    credential = api_key(REPEATED_ORG) if options.keys else token(REPEATED_ORG)
    sent = varied(ORGS, keys=options.keys).requests() if options.varied else repeated(credential)
    principals = len(ORGS) if options.varied else 1
    telemetry = {"endpoint": options.collector, "ratio": options.record or 0.0, "follow_clients": False}
    gateway_settings = settings(telemetry, cluster=options.cluster)
    uvloop.run(measure(options.profile, options.requests, sent, principals, gateway_settings))
