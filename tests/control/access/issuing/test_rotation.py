"""Which key signs when, and that nobody ever verifies with a set that lacks the key of a token."""

import asyncio
import json
from typing import Any

import pytest
from httpx import AsyncClient

from control.access.issuing.key_life import MARGIN_SECONDS
from control.app import opened
from control.http.context import Context
from control.settings.control_plane import Settings
from devstack import postgres
from tests.control.access.issuing.rig import (
    MAX_AGE_SECONDS,
    TOKEN_SECONDS,
    Refused,
    issuer_of,
    issuing,
    published,
    rotation_of,
    verified,
)
from tests.control.plane import MovedClock, admin_of

OVERLAP_SECONDS = MAX_AGE_SECONDS + MARGIN_SECONDS


async def states(admin: AsyncClient) -> list[str]:
    return [key["state"] for key in (await listed(admin))]


async def listed(admin: AsyncClient) -> list[dict[str, Any]]:
    answer = await admin.get("/v1/signing-keys")
    assert answer.status_code == 200, answer.text
    keys: list[dict[str, Any]] = answer.json()["keys"]
    return keys


async def test_the_first_key_signs_at_once(context: Context, admin: AsyncClient, clock: MovedClock) -> None:
    assert await states(admin) == ["signing"]
    minted = await issuer_of(context).mint("acme")
    assert verified(minted.token, await published(admin), clock.now)["org_id"] == "acme"


async def test_a_new_key_signs_only_when_no_copy_of_the_key_set_is_without_it(
    context: Context, admin: AsyncClient, clock: MovedClock
) -> None:
    old_copy = await published(admin)
    assert (await admin.post("/v1/signing-keys")).status_code == 201
    assert await states(admin) == ["signing", "waiting"]
    for seconds in (MAX_AGE_SECONDS - 1, MARGIN_SECONDS):
        clock.move(seconds=seconds)
        token = (await issuer_of(context).mint("acme")).token
        assert verified(token, old_copy, clock.now), "a copy as old as may be still verifies it"
    clock.move(seconds=2)
    token = (await issuer_of(context).mint("acme")).token
    assert await states(admin) == ["verifying", "signing"]
    with pytest.raises(Refused, match="no key"):
        verified(token, old_copy, clock.now)
    assert verified(token, await published(admin), clock.now)


async def test_an_old_key_verifies_until_its_last_token_has_expired_and_is_destroyed_then(
    context: Context, admin: AsyncClient, clock: MovedClock, postgres_dsn: str
) -> None:
    await admin.post("/v1/signing-keys")
    clock.move(seconds=OVERLAP_SECONDS - 1)
    last = (await issuer_of(context).mint("acme", seconds=TOKEN_SECONDS)).token
    clock.move(seconds=TOKEN_SECONDS - 1)
    await rotation_of(context).round()
    assert verified(last, await published(admin), clock.now)
    clock.move(seconds=MARGIN_SECONDS + 2)
    assert len(json.loads(await published(admin))["keys"]) == 1, "out of the set before anybody has destroyed it"
    await rotation_of(context).round()
    assert await states(admin) == ["retired", "signing"]
    assert postgres.execute(postgres_dsn, "SELECT count(*) FROM signing_key WHERE sealed IS NOT NULL") == "1"


async def test_a_key_is_replaced_at_the_age_of_the_settings_once_by_all_control_planes(
    context: Context, admin: AsyncClient, settings: Settings, clock: MovedClock
) -> None:
    async with opened(settings, clock) as other:
        clock.move(days=89.9)
        await asyncio.gather(*(rotation_of(each).round() for each in (context, other)))
        assert await states(admin) == ["signing"]
        clock.move(days=0.2)
        await asyncio.gather(*(rotation_of(each).round() for each in (context, other) * 5))
        assert await states(admin) == ["signing", "waiting"]
        clock.move(seconds=OVERLAP_SECONDS + 1)
        [old, new] = await listed(admin)
        for each in (context, other):
            issuer_of(each).forget()  # as after a second
        tokens = [(await issuer_of(each).mint("acme")).token for each in (context, other)]
        assert [verified(token, await published(admin), clock.now)["org_id"] for token in tokens] == ["acme"] * 2
        assert (old["state"], new["state"]) == ("verifying", "signing")


async def test_many_control_planes_that_start_together_make_one_key(settings: Settings, clock: MovedClock) -> None:
    async def first_key() -> str:
        async with opened(settings, clock) as one, admin_of(one) as client:
            [key] = await listed(client)
            return str(key["id"])

    assert len({*await asyncio.gather(*(first_key() for _ in range(4)))}) == 1


async def test_a_second_rotation_waits_for_the_first(admin: AsyncClient) -> None:
    assert (await admin.post("/v1/signing-keys")).status_code == 201
    again = await admin.post("/v1/signing-keys")
    assert (again.status_code, again.json()["type"]) == (409, "urn:quotagate:problem:conflict")
    assert await states(admin) == ["signing", "waiting"]


async def test_a_retired_signing_key_is_replaced_at_once(
    context: Context, admin: AsyncClient, clock: MovedClock
) -> None:
    stolen = (await issuer_of(context).mint("acme")).token
    [key] = await listed(admin)
    for _ in range(2):
        answer = await admin.post(f"/v1/signing-keys/{key['id']}/retire")
        assert (answer.status_code, answer.json()["state"]) == (200, "retired")
    assert await states(admin) == ["retired", "signing"]
    key_set = await published(admin)
    with pytest.raises(Refused, match="no key"):
        verified(stolen, key_set, clock.now)
    assert verified((await issuer_of(context).mint("acme")).token, key_set, clock.now)


async def test_a_waiting_key_takes_over_from_a_retired_one(admin: AsyncClient) -> None:
    waiting = (await admin.post("/v1/signing-keys")).json()
    [old, _] = await listed(admin)
    await admin.post(f"/v1/signing-keys/{old['id']}/retire")
    assert [(key["id"], key["state"]) for key in await listed(admin)] == [
        (old["id"], "retired"),
        (waiting["id"], "signing"),
    ]


async def test_a_key_that_nobody_has_is_not_retired(admin: AsyncClient) -> None:
    assert (await admin.post(f"/v1/signing-keys/{'x' * 43}/retire")).status_code == 404


async def test_a_key_outlives_the_longest_tokens_that_any_settings_allowed(
    context: Context, admin: AsyncClient, settings: Settings, clock: MovedClock
) -> None:
    longer = settings.model_copy(update={"issuing": issuing(token_seconds=7200)})
    async with opened(longer, clock) as other:
        await admin.post("/v1/signing-keys")
        clock.move(seconds=OVERLAP_SECONDS - 1)
        last = (await issuer_of(other).mint("acme")).token
        clock.move(seconds=7199)
        await rotation_of(context).round()
        assert verified(last, await published(admin), clock.now)


async def test_the_next_key_has_the_algorithm_of_the_settings(settings: Settings, clock: MovedClock) -> None:
    other = settings.model_copy(update={"issuing": issuing(algorithm="ES256")})
    async with opened(settings, clock) as context, opened(other, clock) as changed, admin_of(changed) as admin:
        await admin.post("/v1/signing-keys")
        clock.move(seconds=OVERLAP_SECONDS + 1)
        assert [key["algorithm"] for key in await listed(admin)] == ["EdDSA", "ES256"]
        token = (await issuer_of(context).mint("acme", user="u1")).token
        assert verified(token, await published(admin), clock.now)["sub"] == "u1"
