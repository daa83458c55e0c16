"""The journal of an outage: written before a request is forwarded, and each entry charged once whoever dies."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.ledger.link import Link
from gateway.outage.journal_file import Journal, claim
from gateway.redis.connection import Callback
from quota.calls.call import Call
from tests import charging
from tests.gateway.outage.degraded import (
    ROUTES,
    StartDegraded,
    back,
    blocked,
    cleared,
    emptied,
    entry,
    journaled,
    killed,
    orphan,
)
from tests.gateway.rig import (
    PROCESS_SECONDS,
    Connect,
    Organization,
    Peer,
    StartProcess,
    Until,
    Upstream,
    get,
)
from tests.gateway.store import Store


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
    assert [len(seen_at_arrival) for seen_at_arrival in seen] == 10 * [1]


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
        return int((await client.ask(get("/", acme))).status)

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
) -> None:
    await acme.publish(1000)
    gateway = await allow()
    assert gateway.worker.degraded is not None
    replies = 0

    class HangingLink:
        """The link, with a Redis that hangs after so many replies."""

        def __init__(self, link: Link) -> None:
            self._link = link

        def __getattr__(self, name: str) -> Any:
            return getattr(self._link, name)

        def run(self, call: Call, callback: Callback) -> None:
            def on_reply(reply: Any) -> None:
                nonlocal replies
                replies += 1
                if replies == 100:
                    store.send(signal.SIGSTOP)
                callback(reply)

            self._link.run(call, on_reply)

    replay = gateway.worker.degraded._replay
    replay._link = HangingLink(gateway.link)  # all that a replay uses of it
    orphan(directory, *[entry(f"request-{number}") for number in range(200)])
    await until(lambda: replies >= 100)
    with gateway.hurried():
        await until(lambda: not gateway.link.open)
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
) -> None:
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
    errors = [log for log in gateway.logs if log["log_level"] == "error"]
    assert len(errors) == 1
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
    assert ([entries.request_id for entries in claimed.entries], claimed.torn) == (["one", "four"], 0)
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
