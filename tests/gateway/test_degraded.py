"""Redis is away or slow: what a route allows is forwarded and journaled, and charged to the unit when Redis is back."""

import asyncio
import json
import os
import select
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from redis.asyncio import Redis

from common.settings_file import SettingsConflict
from gateway.ledger import link
from gateway.outage import degraded, journal_file
from gateway.outage.journal_file import Journal, JournalEntry, claim
from gateway.process.metrics import MetricsAggregator, MetricsPublisher
from gateway.settings.root import GatewaySettings
from quota.model import MeterLimit
from tests import charging
from tests.gateway.rig import (
    PROCESS_SECONDS,
    Client,
    Connect,
    Gateway,
    MakeOrganization,
    Organization,
    Peer,
    StartGateway,
    StartProcess,
    Until,
    Upstream,
)
from tests.gateway.store import Store

DECISION_SECONDS = 15.0  # a decision is made within 250 ms, or late on a busy machine; Redis hangs until the test ends
ROUTES = [
    {"path": "/", "upstream": "api", "degraded": "allow"},
    {"path": "/strict", "upstream": "api"},
]


@pytest.fixture
async def running(store: Store) -> AsyncIterator[Redis]:
    store.start()
    async with Redis.from_url(store.url) as redis:
        # What these tests count must outlive a SIGKILL: by default, a write may wait for the fsync before it.
        await redis.config_set("appendfsync", "always")
        yield redis


@pytest.fixture
def acme(running: Redis, acme: Organization) -> Organization:
    """acme in this test's own store."""
    acme._redis = acme.ledger.redis = running
    return acme


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


class StartDegraded(Protocol):
    async def __call__(self, **terms: Any) -> Gateway: ...


@pytest.fixture
def allow(
    running: Redis, store: Store, start: StartGateway, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> StartDegraded:
    """Starts a gateway whose / is forwarded in an outage, and whose /strict is not."""
    monkeypatch.setattr(degraded, "LOOK_SECONDS", 0.02)

    async def go(**terms: Any) -> Gateway:
        return await start(redis={"url": store.url}, routes=ROUTES, degraded={"journal": directory} | terms)

    return go


def journaled(directory: Path) -> list[str]:
    """The request ids in the files, whoever writes them."""
    lines = [line for file in directory.glob("*.journal") for line in file.read_bytes().splitlines()]
    return [entry.request_id for entry in map(journal_file.parse, lines) if entry is not None]


def orphan(directory: Path, *lines: bytes) -> None:
    """The file of a worker that is dead."""
    directory.mkdir(exist_ok=True)
    (directory / f"1-{os.urandom(6).hex()}.journal").write_bytes(b"".join(lines))


def blocked(directory: Path) -> None:
    directory.rmdir()
    directory.write_text("in the way")


def cleared(directory: Path) -> None:
    directory.unlink()


def entry(request_id: str, org: str = "acme", **charges: int) -> bytes:
    return JournalEntry(request_id, org, 1, tuple(charges.items()) or (("api_calls", 1),)).line()


async def killed(gateway: Gateway, store: Store, until: Until) -> None:
    """Redis is gone, and the gateway knows."""
    store.send(signal.SIGKILL)
    await until(lambda: not gateway.worker.link.open)


async def back(store: Store, redis: Redis) -> None:
    store.end()
    store.start()
    await redis.connection_pool.disconnect()


async def emptied(until: Until, directory: Path) -> None:
    await until(lambda: not list(directory.iterdir()))


def get(organization: Organization, path: bytes = b"/") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (path, organization.auth)


async def test_without_redis_a_route_that_allows_it_is_forwarded_and_others_are_refused_and_all_is_charged_once(
    allow: StartDegraded,
    acme: Organization,
    store: Store,
    running: Redis,
    upstream: Upstream,
    directory: Path,
    until: Until,
) -> None:
    await acme.publish(100)
    gateway = await allow()
    assert (await gateway.get("/", acme)).status == (await gateway.get("/strict", acme)).status == 200
    await killed(gateway, store, until)
    answers = [await gateway.get("/", acme) for _ in range(5)]
    assert [answer.status for answer in answers] == 5 * [200]
    assert answers[0]["ratelimit"] is None  # nobody knows
    refused = await gateway.get("/strict", acme)
    assert (refused.status, refused["retry-after"]) == (503, "1")
    assert len(upstream.requests) == 7
    assert len(set(journaled(directory))) == 5
    await back(store, running)
    await acme.comes_to(7)
    await emptied(until, directory)
    assert await acme.events() == 7 * ["t"]
    assert (await gateway.get("/", acme)).remaining == 92


async def test_a_redis_that_loads_its_data_leaves_the_decision_to_the_route_and_all_is_charged_once(
    allow: StartDegraded, acme: Organization, store: Store, upstream: Upstream, directory: Path, until: Until
) -> None:
    await acme.publish(100)
    gateway = await allow()
    assert (await gateway.get("/", acme)).status == 200
    async with store.loading():
        assert [(await gateway.get("/", acme)).status for _ in range(5)] == 5 * [200]
        assert (await gateway.get("/strict", acme)).status == 503
        assert gateway.worker.link.open
        assert len(set(journaled(directory))) == 5
    await acme.comes_to(6)
    await emptied(until, directory)
    assert len(upstream.requests) == 6
    assert await acme.events() == 6 * ["t"]


async def test_a_request_is_in_the_journal_before_it_is_forwarded(
    allow: StartDegraded, acme: Organization, store: Store, upstream: Upstream, directory: Path, until: Until
) -> None:
    seen = []

    async def look(peer: Peer, request: bytes) -> None:
        seen.append([request_id for request_id in journaled(directory) if request_id.encode() in request])
        peer.send(upstream.answer)

    await acme.publish(100)
    gateway = await allow()
    await gateway.get("/", acme)
    await killed(gateway, store, until)
    upstream.script = look
    assert [a.status for a in await asyncio.gather(*(gateway.get("/", acme) for _ in range(10)))] == 10 * [200]
    assert [len(found) for found in seen] == 10 * [1]


async def test_a_redis_that_owes_a_reply_gets_no_more_takes_and_they_are_decided_before_those_it_has(
    allow: StartDegraded, acme: Organization, store: Store, upstream: Upstream, until: Until
) -> None:
    await acme.publish(100)
    gateway = await allow()
    for path in ("/", "/strict"):
        assert (await gateway.get(path, acme)).status == 200
    sent, allowed, denied = [await gateway.connect() for _ in range(3)]
    order = []

    async def ask(name: str, client: Client, path: bytes = b"/") -> int:
        answer = await client.ask(get(acme, path))
        order.append(name)
        return int(answer.status)

    loop = asyncio.get_running_loop()
    with store.hanging(), gateway.hurried(60.0, 0.02):
        began = loop.time()
        first = asyncio.create_task(ask("sent", sent))
        await until(lambda: not gateway.worker.link.accepts)
        assert gateway.worker.link.open
        assert await ask("denied", denied, b"/strict") == 503
        assert await ask("allowed", allowed) == 200
        gateway.gives_redis(0.2, 0.02)
        assert await first == 503  # its take may have been applied: never forwarded, whatever the route allows
        assert loop.time() - began < 2 * DECISION_SECONDS
        assert order == ["denied", "allowed", "sent"]
        assert len(upstream.requests) == 3
    # The charge of the lost take is given back, that of the forwarded one comes.
    await acme.comes_to(3)
    await until(lambda: gateway.worker.link.accepts)
    assert (await gateway.get("/strict", acme)).status == 200
    assert len(upstream.requests) == 4
    await acme.comes_to(4)


async def test_a_hung_redis_gives_every_client_a_decision_in_time_and_no_queue(
    allow: StartDegraded, acme: Organization, store: Store
) -> None:
    await acme.publish(100)
    gateway = await allow()
    await gateway.get("/", acme)
    loop = asyncio.get_running_loop()

    async def decided() -> int:
        client = await gateway.connect()
        began = loop.time()
        status = (await client.ask(get(acme, b"/strict"))).status
        assert loop.time() - began < 2 * DECISION_SECONDS
        return int(status)

    with store.hanging(), gateway.hurried():
        for _ in range(5):
            assert set(await asyncio.gather(*(decided() for _ in range(10)))) == {503}


async def test_a_reply_closes_the_breaker_again(
    allow: StartDegraded, acme: Organization, store: Store, until: Until
) -> None:
    await acme.publish(100)
    gateway = await allow()
    await gateway.get("/strict", acme)
    with store.hanging(), gateway.hurried(60.0, 0.02):
        waiting = asyncio.create_task(gateway.get("/strict", acme))
        await until(lambda: not gateway.worker.link.accepts)
        assert (await gateway.get("/strict", acme)).status == 503
    assert (await waiting).status == 200
    assert gateway.worker.link.accepts
    assert (await gateway.get("/strict", acme)).status == 200
    assert gateway.worker.link.breaks == 1


async def test_a_gateway_that_was_late_itself_does_not_blame_redis(
    allow: StartDegraded, acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    await acme.publish(100)
    gateway = await allow()
    client = await gateway.connect()
    assert (await client.ask(get(acme))).status == 200
    taken = gateway.worker.link.take
    wire = gateway.worker.link._wire
    assert wire is not None
    redis = wire._transport.get_extra_info("socket").fileno()
    late = []

    def be_late() -> None:
        time.sleep(0.1)  # twice the budget
        late.append(select.select([redis], [], [], DECISION_SECONDS)[0])  # and the reply is there

    def take_and_be_late(*words: Any) -> None:
        gateway.gives_redis(60.0, 0.05)
        taken(*words)
        asyncio.get_running_loop().call_soon(be_late)

    monkeypatch.setattr(gateway.worker.link, "take", take_and_be_late)
    assert (await client.ask(get(acme))).status == 200
    assert late == [[redis]]
    assert gateway.worker.link.breaks == 0


async def test_a_queue_that_moves_does_not_open_the_breaker(upstream: Upstream) -> None:
    async def slow(peer: Peer) -> None:
        for _ in range(4):
            await peer.until(b"PING\r\n")
        for _ in range(4):
            await asyncio.sleep(0.5)
            peer.send(b"+PONG\r\n")

    upstream.serve = slow
    loop = asyncio.get_running_loop()
    lost: list[str] = []
    owed: list[bool] = []
    wire = link._Wire(
        loop, 60.0, lambda _, reason: lost.append(reason), lambda _, owing: owed.append(owing), lambda *_, of_take: None
    )
    await loop.create_connection(lambda: wire, "127.0.0.1", upstream.port)
    wire.answer_within(60.0, 1.5)  # a second more than between two replies, for a slow machine
    began = loop.time()
    assert await asyncio.gather(*(wire.ask("PING") for _ in range(4))) == 4 * ["PONG"] or lost
    assert loop.time() - began > 1.5
    assert not owed
    wire.abort("done")


async def test_only_who_was_admitted_lately_and_not_refused_since_is_forwarded(
    allow: StartDegraded,
    acme: Organization,
    store: Store,
    running: Redis,
    organization: MakeOrganization,
    upstream: Upstream,
    until: Until,
) -> None:
    async def published(org: str, **terms: Any) -> Organization:
        made = await organization(org, 1)
        made._redis = made.ledger.redis = running
        made.version = 0
        await made.publish(**terms)
        return made

    fresh, spent, changed = [await published(org) for org in ("fresh", "spent", "changed")]
    await spent.publish(1)
    await acme.publish(100)
    gateway = await allow()
    for each in (acme, spent, changed):
        assert (await gateway.get("/", each)).status == 200
    assert (await gateway.get("/", spent)).status == 429
    [route] = [r for r in gateway.worker.destinations.routes() if r.admitted_at]
    admitted_at = route.admitted_at
    assert admitted_at is not None
    await changed.publish(50)
    await until(lambda: "changed" not in admitted_at)
    await killed(gateway, store, until)
    gateway.worker.exhausted.forget("spent")
    statuses = [(await gateway.get("/", each)).status for each in (acme, fresh, spent, changed)]
    assert statuses == [200, 503, 503, 503]
    assert len(upstream.requests) == 4


async def test_a_request_with_an_idempotency_key_waits_for_redis(
    allow: StartDegraded, acme: Organization, store: Store, upstream: Upstream, until: Until
) -> None:
    await acme.publish(100)
    gateway = await allow()
    await gateway.get("/", acme)
    await killed(gateway, store, until)
    assert (await gateway.get("/", acme, b"Idempotency-Key: a\r\n")).status == 503
    assert (await gateway.get("/", acme)).status == 200
    assert len(upstream.requests) == 2


async def test_the_budget_bounds_an_outage_for_each_organization_and_in_total(
    allow: StartDegraded,
    acme: Organization,
    store: Store,
    running: Redis,
    organization: MakeOrganization,
    directory: Path,
    until: Until,
) -> None:
    other = await organization("other", 1)
    other._redis = other.ledger.redis = running
    other.version = 0
    await other.publish(100)
    await acme.publish(100)
    gateway = await allow(budget={"units_per_org": 3, "units_total": 5})
    for each in (acme, other):
        await gateway.get("/", each)

    async def outage() -> list[int]:
        await killed(gateway, store, until)
        return [(await gateway.get("/", each)).status for each in (*5 * [acme], *3 * [other])]

    expected = [200, 200, 200, 503, 503, 200, 200, 503]
    assert await outage() == expected
    await back(store, running)
    await acme.comes_to(4)
    await other.comes_to(3)
    await emptied(until, directory)
    await until(lambda: gateway.degraded._outage_since is None)
    assert await outage() == expected  # the next outage has its own


async def test_an_outage_that_is_too_long_is_refused(
    allow: StartDegraded, acme: Organization, store: Store, until: Until
) -> None:
    await acme.publish(100)
    gateway = await allow(max_seconds=600)
    await gateway.get("/", acme)
    await killed(gateway, store, until)
    assert (await gateway.get("/", acme)).status == 200
    began = gateway.degraded._outage_since
    assert began is not None
    gateway.degraded._outage_since = began - 600
    since = gateway.worker.deadlines.now
    await until(lambda: gateway.worker.deadlines.now > since)
    assert (await gateway.get("/", acme)).status == 503


async def test_what_was_used_beyond_the_limit_is_charged_and_the_organization_exhausted(
    allow: StartDegraded, acme: Organization, store: Store, running: Redis, until: Until, directory: Path
) -> None:
    await acme.publish(3)
    gateway = await allow()
    await gateway.get("/", acme)
    await killed(gateway, store, until)
    for _ in range(5):
        assert (await gateway.get("/", acme)).status == 200
    await back(store, running)
    await acme.comes_to(6)
    refused = await gateway.get("/", acme)
    assert (refused.status, refused.remaining) == (429, 0)


async def test_a_worker_that_is_killed_leaves_its_journal_to_the_next(
    run: StartProcess,
    acme: Organization,
    store: Store,
    running: Redis,
    upstream: Upstream,
    directory: Path,
    until: Until,
    connect: Connect,
) -> None:
    await acme.publish(100)
    process = await run(redis={"url": store.url}, routes=ROUTES, degraded={"journal": str(directory)})

    async def ask() -> int:
        client = await connect(process.port)
        return int((await client.ask(get(acme))).status)

    assert await ask() == 200
    store.send(signal.SIGKILL)
    await until(lambda: process.logged("redis connection lost") == 1)
    assert [await ask() for _ in range(4)] == 4 * [200]
    assert len(journaled(directory)) == 4
    for each in process.workers():
        each.kill()
    await until(lambda: process.logged("Started server process") == 2, PROCESS_SECONDS)
    await back(store, running)
    await acme.comes_to(5)
    await emptied(until, directory)
    assert await acme.events() == 5 * ["t"]


async def test_two_workers_and_an_attempt_that_died_halfway_charge_each_entry_once(
    allow: StartDegraded, acme: Organization, directory: Path, until: Until
) -> None:
    await acme.publish(1000)
    ids = [f"request-{number}" for number in range(200)]
    for request_id in ids[:70]:
        await charging.replay(acme.ledger, "acme", request_id, {"api_calls": 1})
    orphan(directory, *map(entry, ids[:100]))
    orphan(directory, *map(entry, ids[50:]))
    one, other = await allow(), await allow()
    await emptied(until, directory)
    assert await acme.used() == 200
    assert await acme.events() == 200 * ["t"]
    assert one.degraded.replayed + other.degraded.replayed == 130


async def test_a_redis_that_hangs_during_the_replay_gets_each_entry_once(
    allow: StartDegraded,
    acme: Organization,
    store: Store,
    directory: Path,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await acme.publish(1000)
    gateway = await allow()
    replies = 0
    call = gateway.worker.link.call

    def call_and_hang(data: bytes, callback: Any) -> None:
        def on_reply(reply: Any) -> None:
            nonlocal replies
            replies += 1
            if replies == 100:
                store.send(signal.SIGSTOP)
            callback(reply)

        call(data, on_reply)

    monkeypatch.setattr(gateway.worker.link, "call", call_and_hang)
    monkeypatch.setattr("gateway.outage.journal_replay.AGAIN_SECONDS", (0.02, 0.02))
    orphan(directory, *[entry(f"request-{number}") for number in range(200)])
    await until(lambda: replies >= 100)
    with gateway.hurried():
        await until(lambda: not gateway.worker.link.open)
    store.send(signal.SIGCONT)
    await emptied(until, directory)
    assert await acme.used() == 200
    assert await acme.events() == 200 * ["t"]


async def test_a_torn_record_is_left_out_and_the_whole_ones_are_charged(
    allow: StartDegraded, acme: Organization, directory: Path, until: Until
) -> None:
    await acme.publish(100)
    altered = entry("altered", api_calls=1).replace(b":1", b":9")
    orphan(directory, entry("one", api_calls=2), b"\0\0\0\n", altered, entry("two", tokens=3), entry("torn")[:-9])
    gateway = await allow()
    await emptied(until, directory)
    assert (await acme.used(), await acme.used("tokens")) == (2, 3)
    assert [log["torn"] for log in gateway.logs if log["event"] == "journal has torn entries"] == [3]


async def test_entries_of_an_organization_that_redis_lost_are_kept_asked_for_and_charged_when_it_is_there(
    allow: StartDegraded,
    acme: Organization,
    running: Redis,
    directory: Path,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.outage.journal_replay.AGAIN_SECONDS", (0.02, 0.02))
    await acme.publish(100)
    orphan(directory, entry("known"), entry("lost", org="ghost"))
    gateway = await allow()
    await acme.comes_to(1)
    await until(lambda: any(log["event"] == "journal entries kept" for log in gateway.logs))
    assert journaled(directory) == ["lost"]
    assert gateway.degraded.open == 1
    async with asyncio.timeout(60):
        while b"ghost" not in await running.lrange("qg:hydrate", 0, -1):  # noqa: ASYNC110 - a list rings no bell
            await asyncio.sleep(0.01)
    acme.id, acme.version = "ghost", 0
    await acme.publish(100)
    await acme.comes_to(1)
    await emptied(until, directory)


async def test_a_journal_that_cannot_be_written_refuses_and_tells_it_once(
    allow: StartDegraded, acme: Organization, store: Store, upstream: Upstream, directory: Path, until: Until
) -> None:
    await acme.publish(100)
    gateway = await allow()
    await gateway.get("/", acme)
    blocked(directory)
    await killed(gateway, store, until)
    gateway.expected_errors |= {"journal not written: routes deny while redis is away", "journal cannot be read"}
    assert [(await gateway.get("/", acme)).status for _ in range(3)] == 3 * [503]
    assert len(upstream.requests) == 1
    told = [log for log in gateway.logs if log["log_level"] == "error"]
    assert len(told) == 1
    assert json.loads((await gateway.get("/-/ready")).body)["journal"]["state"] == "unwritable"
    cleared(directory)
    assert (await gateway.get("/", acme)).status == 200
    assert json.loads((await gateway.get("/-/ready")).body)["journal"] == {"state": "writable", "open": 1}


def test_what_a_full_disk_took_a_part_of_is_not_in_the_journal(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Journal(directory)
    written.append([entry("one")])
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:-1]))
    with pytest.raises(OSError, match="full"):
        written.append([entry("two"), entry("three")])
    monkeypatch.undo()
    written.append([entry("four")])
    assert list(claim(directory)) == []  # it is written
    assert journaled(directory) == ["one", "four"]
    written.hand_over()
    [claimed] = claim(directory)
    assert ([found.request_id for found in claimed.entries], claimed.torn) == (["one", "four"], 0)
    assert list(claim(directory)) == []  # it is replayed
    claimed.release()


@pytest.mark.parametrize("replayed_first", [False, True])
async def test_what_the_upstream_did_not_answer_in_an_outage_is_not_charged_in_the_end(
    allow: StartDegraded,
    acme: Organization,
    store: Store,
    running: Redis,
    upstream: Upstream,
    directory: Path,
    until: Until,
    replayed_first: bool,
) -> None:
    cut = asyncio.Event()

    async def fail(peer: Peer, request: bytes) -> None:
        await cut.wait()
        peer.writer.transport.abort()

    await acme.publish(100)
    gateway = await allow()
    await gateway.get("/", acme)
    await killed(gateway, store, until)
    upstream.script = fail
    client = await gateway.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n%b\r\nhi" % acme.auth)
    await until(lambda: len(upstream.requests) == 2)
    if not replayed_first:
        cut.set()
        assert (await client.answer("POST")).status == 502
    await back(store, running)
    if replayed_first:
        await acme.comes_to(2)
        cut.set()
        assert (await client.answer("POST")).status == 502
    await acme.settled("tts" if replayed_first else "t")
    await emptied(until, directory)
    await acme.comes_to(1)


async def test_degraded_decisions_are_counted_and_logged(
    allow: StartDegraded,
    acme: Organization,
    store: Store,
    running: Redis,
    tmp_path: Path,
    until: Until,
    directory: Path,
) -> None:
    await acme.publish(100)
    gateway = await allow()
    await gateway.get("/", acme)
    await killed(gateway, store, until)
    await gateway.get("/", acme)
    await until(lambda: gateway.worker.recorder.finished_count == 2)

    def told() -> str:
        MetricsPublisher(gateway.worker, tmp_path).publish()
        return MetricsAggregator(tmp_path).collect(frozenset({os.getpid()}))

    assert 'quotagate_decisions_total{route="/",verdict="degraded"} 1.0\n' in told()
    assert "quotagate_journal_open 1.0\n" in told()
    [tally] = [t for t in gateway.worker.recorder.tallies() if t.verdict == "degraded"]
    assert tally.fields == b'"route":"/","status":200,"verdict":"degraded","meters":{"api_calls": 1}'
    await back(store, running)
    await acme.comes_to(2)
    await emptied(until, directory)
    await until(lambda: "quotagate_journal_replayed_total 1.0\n" in told())
    assert "quotagate_journal_open 0.0\n" in told()


async def test_several_meters_are_charged_together_afterwards(
    allow: StartDegraded,
    acme: Organization,
    store: Store,
    running: Redis,
    until: Until,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ROUTES[0], "meters", {"api_calls": 1, "tokens": 20})
    await acme.publish(meters=(MeterLimit("api_calls", 100), MeterLimit("tokens", 1000)))
    gateway = await allow()
    await gateway.get("/", acme)
    await killed(gateway, store, until)
    assert (await gateway.get("/", acme)).status == 200
    await back(store, running)
    await acme.comes_to(2)
    assert await acme.used("tokens") == 40
    assert await acme.events() == 2 * ["t"]


@pytest.mark.parametrize(
    ("route", "fault"),
    [({"degraded": "allow"}, "allow needs a directory"), ({"exempt": True, "degraded": "deny"}, "exempt route")],
)
def test_a_route_that_cannot_be_degraded_is_refused_in_the_settings(route: dict[str, Any], fault: str) -> None:
    told = {
        "redis": {"url": "redis://localhost"},
        "auth": {"algorithms": ["HS256"], "secret": 32 * "s", "issuer": "i"},
        "upstreams": {"api": {"url": "http://localhost"}},
        "routes": [{"path": "/", "upstream": "api", **route}],
    }
    with pytest.raises((SettingsConflict, ValueError), match=fault):
        GatewaySettings.model_validate(told)
