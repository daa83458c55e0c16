"""A tunnel that pays as it goes is looked at whenever its organization has changed, and ends when its principal may not
go on."""

import asyncio
from typing import Any

import pytest

from quota.access import Mark, MarkKind
from quota.model import MeterLimit
from tests.gateway.access.opening import opened
from tests.gateway.access.tokens import bearer
from tests.gateway.rig import MakeOrganization, Organization, StartGateway, Upstream
from tests.gateway.rig.keys import Keyring, revoke
from tests.gateway.tunnels import MEBIBYTE, MESSAGE, closed_with, frame, route


@pytest.fixture
async def metered(organization: MakeOrganization) -> Organization:
    meters = (MeterLimit("api_calls", 100), MeterLimit("messages", 100), MeterLimit("mebibytes", 100))
    return await organization("acme", None, meters=meters)


async def test_a_tunnel_goes_on_through_changes_of_its_organization_and_is_charged_exactly(
    start: StartGateway, upstream: Upstream, metered: Organization
) -> None:
    gateway = await start(routes=route(tunnel=MESSAGE))
    key = await Keyring().make(metered)
    client, far = await opened(gateway, upstream, key.auth)
    for _ in range(5):
        await metered.publish(None, meters=(MeterLimit("api_calls", 100), MeterLimit("messages", 100)))
        client.send(frame(b"paid"))
        assert await far.exactly(10) == frame(b"paid")
    assert await metered.used("messages") == 5
    assert gateway.worker.looks.stale == 5
    assert {event.split(" ")[2] for event in await metered.event_texts()} == {f"acme/k:{key.id}"}


@pytest.mark.parametrize(("tunnel", "paid_bytes"), [(MESSAGE, 0), (MEBIBYTE, 1 << 20)], ids=["messages", "mebibytes"])
async def test_a_tunnel_whose_token_was_revoked_is_closed_with_1008_before_what_is_not_paid_passes(
    start: StartGateway, upstream: Upstream, metered: Organization, tunnel: dict[str, Any], paid_bytes: int
) -> None:
    gateway = await start(routes=route(tunnel=tunnel))
    client, far = await opened(gateway, upstream, bearer(jti="t1"))
    client.send(frame(b"paid"))
    assert await far.exactly(10) == frame(b"paid")
    await revoke(metered, Mark(MarkKind.TOKEN, "t1"))
    client.send(b"".join(frame(b"x" * 1000) for _ in range(3000)))
    ended, passed = await asyncio.gather(client.gone(), far.gone())
    if tunnel is MESSAGE:
        assert closed_with(1008, ended)
    assert len(passed) <= paid_bytes + 200  # and a Close frame
    assert await metered.used("messages") + await metered.used("mebibytes") == 1


async def test_a_tunnel_whose_key_was_revoked_or_moved_to_other_networks_is_closed(
    start: StartGateway, upstream: Upstream, metered: Organization
) -> None:
    gateway = await start(routes=route(tunnel=MESSAGE))
    keyring = Keyring()
    revoked, moved = await keyring.make(metered), await keyring.make(metered)
    first, _ = await opened(gateway, upstream, revoked.auth)
    second, _ = await opened(gateway, upstream, moved.auth)
    await revoked.revoke()
    first.send(frame(b"m"))
    assert closed_with(1008, await first.gone())
    await moved.change(networks=("192.0.2.0/24",))
    second.send(frame(b"m"))
    assert closed_with(1008, await second.gone())
    assert await metered.used("messages") == 0


async def test_a_tunnel_that_is_not_charged_for_what_passes_goes_on_like_any_answer_that_has_begun(
    start: StartGateway, upstream: Upstream, metered: Organization
) -> None:
    gateway = await start(routes=route())
    client, far = await opened(gateway, upstream, bearer(jti="t1"))
    await revoke(metered, Mark(MarkKind.TOKEN, "t1"))
    client.send(frame(b"free"))
    assert await far.exactly(10) == frame(b"free")
