"""Names of targets: asked anew, used in turn, and remembered while DNS is away."""

import asyncio
import socket
from typing import Any

import pytest

from gateway.http.deadlines import DeadlineSweep
from gateway.upstream.resolve import Addresses
from tests.gateway.rig import Organization, Peer, StartGateway, Until, Upstream


class Dns:
    """Answers what the test says."""

    def __init__(self) -> None:
        self.says: list[str] | OSError = ["127.0.0.1"]
        self.asked = 0

    async def look_up(self, host: str, port: int) -> list[str]:
        self.asked += 1
        if isinstance(self.says, OSError):
            raise self.says
        return list(self.says)


@pytest.fixture
def dns() -> Dns:
    return Dns()


AWAY = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def addresses(dns: Dns, changes: list[Any], host: str = "api.internal") -> Addresses:
    deadlines = DeadlineSweep(asyncio.get_running_loop())
    deadlines.close()  # its ticks are what the test says
    return Addresses(deadlines, host, 80, 30, dns.look_up, changes.append)


async def test_all_addresses_of_a_name_are_used_in_turn(dns: Dns) -> None:
    dns.says = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    resolved = addresses(dns, [])
    firsts = [(await resolved.in_turn())[0] for _ in range(6)]
    assert sorted(firsts) == sorted(dns.says * 2)
    assert dns.asked == 1


async def test_an_address_that_refused_comes_last_until_dns_is_asked_again(dns: Dns) -> None:
    dns.says = ["10.0.0.1", "10.0.0.2"]
    resolved = addresses(dns, [])
    await resolved.in_turn()
    resolved.refused("10.0.0.1")
    assert [await resolved.in_turn() for _ in range(3)] == [["10.0.0.2", "10.0.0.1"]] * 3
    await resolved.refresh()
    assert {(await resolved.in_turn())[0] for _ in range(2)} == set(dns.says)


async def test_requests_that_come_at_once_ask_dns_once(dns: Dns) -> None:
    resolved = addresses(dns, [])
    await asyncio.gather(*[resolved.in_turn() for _ in range(10)])
    assert dns.asked == 1


async def test_the_last_answer_holds_while_dns_is_away(dns: Dns) -> None:
    changes: list[Any] = []
    resolved = addresses(dns, changes)
    assert await resolved.in_turn() == ["127.0.0.1"]
    answers: tuple[Any, ...] = (AWAY, [])
    for gone in answers:
        dns.says = gone
        await resolved.refresh()
        assert await resolved.in_turn() == ["127.0.0.1"]
    assert (dns.asked, changes) == (3, [])
    assert resolved.deadline < float("inf"), "and it is asked again"


async def test_a_name_without_an_address_is_asked_at_each_try(dns: Dns) -> None:
    dns.says = AWAY
    resolved = addresses(dns, [])
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await resolved.in_turn()
    dns.says = ["127.0.0.1"]
    assert await resolved.in_turn() == ["127.0.0.1"]
    assert dns.asked == 3


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_address_is_never_asked_of_dns(dns: Dns, host: str) -> None:
    assert await addresses(dns, [], host).in_turn() == [host]
    assert dns.asked == 0


async def test_connections_to_an_address_that_is_gone_from_dns_end(
    start: StartGateway, acme: Organization, upstream: Upstream, dns: Dns, until: Until
) -> None:
    gateway = await start(f"http://localhost:{upstream.port}", upstreams={"api": {"resolve_seconds": 0.05}})
    pool = gateway.worker._pools["api"]
    pool.addresses._look_up = dns.look_up
    client, release = await gateway.connect(), asyncio.Event()

    async def slowly(peer: Peer, _: bytes) -> None:
        await release.wait()
        peer.send(upstream.answer)

    ask = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n" + acme.auth + b"\r\n"
    assert (await client.ask(ask)).status == 200
    assert len(pool._idle) == 1
    upstream.script = slowly
    client.send(ask)
    await until(lambda: len(upstream.requests) == 2)
    dns.says = ["127.0.0.2"]
    await until(lambda: all(connection.retired for connection in pool._connections))
    release.set()
    assert (await client.answer()).status == 200, "what is under way is finished"
    await until(lambda: pool._open == 0)
    dns.says = ["127.0.0.1"]
    await until(lambda: pool.addresses._addresses == ["127.0.0.1"])
    assert (await client.ask(ask)).status == 200
    assert upstream.accepted == 2


async def test_an_address_that_refuses_leaves_the_request_to_the_next(
    start: StartGateway, acme: Organization, upstream: Upstream, dns: Dns
) -> None:
    dns.says = ["127.0.0.2", "127.0.0.1"]  # the upstream listens on one of them only
    gateway = await start(f"http://localhost:{upstream.port}")
    gateway.worker._pools["api"].addresses._look_up = dns.look_up
    ask = (
        b"POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 5\r\nConnection: close\r\n"
        + acme.auth
        + b"\r\nhello"
    )
    for _ in range(4):
        assert (await gateway.ask(ask)).status == 200
    assert await acme.used() == 4
