"""Shadow mode that is published with an organization's entitlement."""

import json
from pathlib import Path

import pytest

from quota.access import Mark, MarkKind
from tests.gateway.rig import Gateway, MakeOrganization, StartGateway, Until, Upstream, request
from tests.gateway.rig.keys import Keyring, revoke

NOTHING_IN_PLAN = None


@pytest.fixture
def keyring() -> Keyring:
    return Keyring()


async def status(gateway: Gateway, auth: bytes, lines: bytes = b"") -> int:
    return (await gateway.ask(request(auth, lines=lines))).status


async def test_what_of_it_would_be_refused_is_forwarded_recorded_kept_and_not_charged(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, tmp_path: Path, until: Until
) -> None:
    file = tmp_path / "access.log"
    gateway = await start(access_log={"path": str(file)})
    acme, other = await organization("acme", 1, shadow=True), await organization("other", 0)
    answers = [await gateway.get("/", acme) for _ in range(3)]
    assert [(a.status, a.body, a["retry-after"]) for a in answers] == [(200, b"ok", None)] * 3
    assert all(b"X-Quota-Org: acme\r\n" in sent for sent in upstream.requests)
    assert await acme.used() == 1
    assert await status(gateway, other.auth) == 429
    await until(lambda: file.exists() and len(file.read_bytes().splitlines()) >= 4)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert [(line["org"], line["verdict"], line.get("shadow")) for line in lines] == [
        ("acme", "admitted", None),
        ("acme", "exhausted", True),
        ("acme", "exhausted", True),
        ("other", "cost_above_limit", None),
    ]
    assert gateway.worker.refused.refused == 3


async def test_an_answer_that_only_shadow_mode_let_pass_has_no_ratelimit_fields_by_which_a_client_would_stop(
    gateway: Gateway, organization: MakeOrganization
) -> None:
    acme = await organization("acme", 2, shadow=True)
    answers = [await gateway.get("/", acme) for _ in range(4)]
    assert [answer["ratelimit"] and answer["ratelimit"].partition(";t=")[0] for answer in answers] == [
        '"api_calls";r=1',
        '"api_calls";r=0',
        None,
        None,
    ]
    assert [answer["ratelimit-policy"] is None for answer in answers] == [False, False, True, True]


async def test_a_change_of_it_holds_from_the_next_request_on(gateway: Gateway, organization: MakeOrganization) -> None:
    acme = await organization("acme", NOTHING_IN_PLAN)
    for _ in range(3):
        assert await status(gateway, acme.auth) == 403
        await acme.publish(NOTHING_IN_PLAN, shadow=True)
        assert await status(gateway, acme.auth) == 200
        await acme.publish(NOTHING_IN_PLAN)


async def test_what_passed_in_shadow_is_remembered_for_nobody_as_exhausted(
    gateway: Gateway, organization: MakeOrganization, keyring: Keyring, until: Until
) -> None:
    acme = await organization("acme", 1)
    early, late = await keyring.make(acme), await keyring.make(acme)
    assert [await status(gateway, early.auth) for _ in range(3)] == [200, 429, 429]
    await acme.publish(1, shadow=True)
    await until(lambda: not gateway.worker.exhausted.by_org)
    # The one has looked since, the other has not.
    assert [await status(gateway, late.auth), await status(gateway, early.auth)] == [200, 200]
    await acme.publish(1)
    assert [await status(gateway, late.auth), await status(gateway, early.auth)] == [429, 429]
    assert await acme.used() == 1


async def test_a_request_with_an_idempotency_key_is_repeated_without_a_charge_and_charged_when_it_can_be(
    gateway: Gateway, organization: MakeOrganization
) -> None:
    acme, key = await organization("acme", 0, shadow=True), b"Idempotency-Key: one\r\n"
    assert [await status(gateway, acme.auth, key) for _ in range(2)] == [200, 200]
    assert await acme.used() == 0
    await acme.publish(5)
    assert [await status(gateway, acme.auth, key) for _ in range(2)] == [200, 200]
    assert await acme.used() == 1


async def test_who_is_revoked_stays_refused(gateway: Gateway, organization: MakeOrganization, keyring: Keyring) -> None:
    acme = await organization("acme", 0, shadow=True)
    key, narrow = await keyring.make(acme), await keyring.make(acme, scopes=("route:another",))
    assert [await status(gateway, auth) for auth in (acme.auth, key.auth, narrow.auth)] == [200, 200, 403]
    await key.revoke()
    assert [await status(gateway, auth) for auth in (acme.auth, key.auth)] == [200, 401]
    await revoke(acme, Mark(MarkKind.ORGANIZATION))
    assert await status(gateway, acme.auth) == 401


@pytest.mark.parametrize("degraded", ["deny", "allow"])
async def test_with_redis_away_those_that_were_looked_at_pass_and_of_others_nothing_is_known(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, tmp_path: Path, degraded: str
) -> None:
    routes = [{"path": "/", "upstream": "api", "degraded": degraded}]
    gateway = await start(routes=routes, **{"degraded": {"journal": str(tmp_path)}} if degraded == "allow" else {})
    acme, unseen = await organization("acme", 0, shadow=True), await organization("unseen", 0, shadow=True)
    assert await status(gateway, acme.auth) == 200
    await gateway.worker.link.close()
    assert await status(gateway, acme.auth) == 200
    assert await status(gateway, unseen.auth) == 503
    assert len(upstream.requests) == 2
    assert await acme.used() == 0
