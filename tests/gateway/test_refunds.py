"""When a charge is given back: by the route's rules, once, and not more often in a period than the route's cap."""

import asyncio
from typing import Any

import pytest

from quota.model import MeterLimit
from tests.gateway.rig import (
    PATIENCE_SECONDS,
    MakeOrganization,
    Organization,
    Peer,
    StartGateway,
    Until,
    Upstream,
    closed_port,
    get,
)

OUTCOMES = (
    "connect_failure",
    "invalid_answer",
    "request_refused",
    "timeout",
    "server_error",
    "cut_answer",
    "client_abort",
)
DEFAULT = ("connect_failure", "invalid_answer", "request_refused")
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno"


def routes(**refund: Any) -> list[dict[str, Any]]:
    return [{"path": "/", "upstream": "api", **({"refund": refund} if refund else {})}]


async def brought_about(
    outcome: str, start: StartGateway, acme: Organization, upstream: Upstream, until: Until, **refund: Any
) -> tuple[Any, Any]:
    """A gateway on which a request came to this end, and the answer, if there was one."""

    async def answers(peer: Peer, _: bytes) -> None:
        if outcome == "server_error":
            peer.send(FAILED)
        elif outcome in ("invalid_answer", "cut_answer"):
            peer.send(CUT if outcome == "cut_answer" else b"junk")
            await peer.close()
        else:
            await peer.gone()

    async def serve(peer: Peer) -> None:
        upstream.requests.append(await peer.until(b"\r\n\r\n"))
        await answers(peer, b"")

    upstream.serve = serve
    url = f"http://127.0.0.1:{closed_port()}" if outcome == "connect_failure" else upstream.url
    limits = {"head_timeout_seconds": 0.1} if outcome == "timeout" else {}
    gateway = await start(
        url,
        upstreams={"api": limits},
        routes=routes(**refund),
        limits={"body_bytes_max": 10},
        access_log={"enabled": False},
    )
    client = await gateway.connect()
    if outcome == "client_abort":
        client.send(get("/", acme))
        await until(lambda: bool(upstream.requests))
        await client.close()
        return gateway, None
    if outcome == "cut_answer":
        client.send(get("/", acme))
        await client.gone()
        return gateway, None
    if outcome == "request_refused":
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\n%bTransfer-Encoding: chunked\r\n\r\n" % acme.auth)
        await until(lambda: bool(upstream.requests))
        return gateway, await client.ask(b"b\r\nhello world\r\n0\r\n\r\n", "POST")
    return gateway, await client.ask(get("/", acme))


STATUS = {"connect_failure": 502, "invalid_answer": 502, "request_refused": 413, "timeout": 504, "server_error": 500}


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("rule", ["default", "on", "off"])
async def test_a_charge_is_given_back_for_the_outcomes_that_the_route_names_and_stays_for_others(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until, outcome: str, rule: str
) -> None:
    others = [other for other in OUTCOMES if other != outcome]
    refund = {"default": {}, "on": {"on": [outcome]}, "off": {"on": others}}[rule]
    gateway, answer = await brought_about(outcome, start, acme, upstream, until, **refund)
    assert (answer.status if answer else None) == STATUS.get(outcome)
    back = rule == "on" or (rule == "default" and outcome in DEFAULT)
    if back:
        assert await acme.settled("ts")
    else:
        await until(lambda: not any(each.in_flight for each in gateway.connections))
        await gateway.worker.settlements.drain(PATIENCE_SECONDS)  # had one been made, it would be in the stream now
        assert await acme.events() == ["t"]
    assert await acme.used() == (0 if back else 1)
    assert gateway.worker.settlements.given_back == back
    if answer and answer.status in (502, 504):
        assert ("nothing was charged" in answer.problem["detail"]) == back


async def test_a_request_that_was_never_sent_is_given_back_whatever_the_rules(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(routes=routes(on=[], cap_per_period=0), upstreams={"api": {"connections_max": 1}})
    release = asyncio.Event()

    async def slowly(peer: Peer, _: bytes) -> None:
        await release.wait()
        peer.send(upstream.answer)

    upstream.script = slowly
    first, second = await gateway.connect(), await gateway.connect()
    first.send(get("/", acme))
    second.send(get("/", acme))
    assert await acme.settled("tt")
    await second.close()
    assert await acme.settled("tts")
    release.set()
    assert (await first.answer()).status == 200
    assert await acme.used() == 1


async def test_an_organization_gets_so_many_refunds_in_a_period_and_no_more_however_many_ask_at_once(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    upstream.answer = FAILED
    gateways = [await start(routes=routes(on=["server_error"], cap_per_period=7)) for _ in range(2)]
    clients = [await gateways[n % 2].connect() for n in range(20)]
    answers = await asyncio.gather(*(client.ask(get("/", acme)) for client in clients))
    assert {answer.status for answer in answers} == {500}
    settlements = [gateway.worker.settlements for gateway in gateways]
    await until(lambda: sum(each.given_back + each.capped for each in settlements) == 20)
    assert sorted(await acme.events()) == ["s"] * 7 + ["t"] * 20
    assert await acme.used() == 13
    assert list((await acme.standing()).refunds.values()) == [7]


async def test_what_was_never_sent_is_not_counted_to_the_cap(start: StartGateway, acme: Organization) -> None:
    gateway = await start(f"http://127.0.0.1:{closed_port()}", routes=routes(cap_per_period=1))
    for n in (1, 2, 3):
        assert (await gateway.ask(get("/", acme))).status == 502
        assert await acme.settled("ts" * n)
    assert await acme.used() == 0
    assert not (await acme.standing()).refunds


async def test_beyond_the_cap_the_charge_is_what_the_upstream_reported(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    acme = await organization("acme", None, meters=(MeterLimit("tokens", 1000),))
    upstream.answer = FAILED.replace(b"Content-Length", b"X-Units: 8\r\nContent-Length")
    cost = {"reported": {"header": "X-Units"}, "estimate": 100, "max": 200}
    gateway = await start(routes=[routes(on=["server_error"], cap_per_period=1)[0] | {"meters": {"tokens": cost}}])
    for events, used in (("ts", 0), ("tsts", 8)):
        assert (await gateway.ask(get("/", acme))).status == 500
        assert await acme.settled(events)
        assert await acme.used("tokens") == used
    assert (gateway.worker.settlements.given_back, gateway.worker.settlements.capped) == (1, 1)
