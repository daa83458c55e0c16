"""An idempotency key of `POST /v1/usage` charges once, whoever sends it how often, and belongs to one organization."""

import asyncio
from typing import Any

import pytest
from httpx import AsyncClient

from control.http.context import Context
from control.moments import rfc3339
from tests.control.plane import Entitled
from tests.control.reporting import Post, events, record, statuses
from tests.control.usage import used
from tests.expected import monthly_period


async def test_a_key_that_comes_again_is_answered_as_the_first_time_and_charged_once(
    context: Context, entitled: Entitled, post: Post, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    sent = record(units=60, timestamp=rfc3339(context.clock()))
    first = await post(org, sent)
    assert first.status_code == 200
    again = await post(org, dict(reversed(sent.items())))
    assert (again.status_code, again.json()) == (200, first.json())
    listed = await post(org, [sent, record(), sent])
    assert listed.json()["results"][0] == listed.json()["results"][2] == first.json()
    # Not even an organization that may use nothing any more is told otherwise of what it was charged for.
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny", "status": "suspended"})
    assert (await post(org, sent)).json() == first.json()
    assert (await post(org, record())).status_code == 402
    assert await used(context, org) == 61
    assert await events(context, org) == 2


@pytest.mark.parametrize(
    "other", [{"units": 4}, {"meter": "images"}, {"timestamp": rfc3339(monthly_period(0, 1.8e9).start)}]
)
async def test_a_key_with_another_record_is_409_and_nothing_is_charged(
    context: Context, entitled: Entitled, post: Post, other: dict[str, Any]
) -> None:
    org = await entitled("tiny", meters={"images": 10})
    sent = record(units=3)
    assert (await post(org, sent)).status_code == 200
    response = await post(org, sent | other)
    assert (response.status_code, response.json()["type"]) == (409, "urn:quotagate:problem:conflict")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["correlation_id"] == response.headers["x-request-id"]
    assert statuses(await post(org, [sent | other, record(), sent])) == [409, 200, 200]
    assert await used(context, org) == 4


async def test_of_two_records_with_one_key_in_one_batch_the_first_is_charged_and_another_one_is_409(
    context: Context, entitled: Entitled, post: Post
) -> None:
    org = await entitled("tiny")
    same, other = record(units=2), record(units=2)
    response = await post(org, [same, other, same, other | {"units": 9}])
    assert statuses(response) == [200, 200, 200, 409]
    assert response.json()["results"][0] == response.json()["results"][2]
    assert await used(context, org) == 4


async def test_200_posts_with_one_key_at_once_charge_once_and_have_one_answer(
    context: Context, entitled: Entitled, post: Post, admin: AsyncClient
) -> None:
    org = await entitled("tiny", concurrent_max=1)
    sent = record(units=5)
    answers = await asyncio.gather(*(post(org, sent) for _ in range(200)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert await used(context, org) == 5
    assert await events(context, org) == 1


async def test_of_200_posts_with_one_key_and_two_contents_at_once_one_content_is_charged_once_and_the_other_is_409(
    context: Context, entitled: Entitled, post: Post
) -> None:
    org = await entitled("tiny")
    sent = record()
    contents = [sent | {"units": 2}, sent | {"units": 3}]
    answers = await asyncio.gather(*(post(org, contents[n % 2]) for n in range(200)))
    charged = await used(context, org)
    assert charged in (2, 3)
    assert [answer.status_code == 200 for answer in answers] == [n % 2 == charged - 2 for n in range(200)]
    assert await events(context, org) == 1


async def test_a_refused_record_leaves_its_key_free(
    context: Context, entitled: Entitled, post: Post, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    sent = record(units=101)
    assert (await post(org, sent)).status_code == 429
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "starter"})
    assert (await post(org, sent)).status_code == 200
    assert await used(context, org) == 101


async def test_one_key_of_two_organizations_is_two_keys(entitled: Entitled, post: Post) -> None:
    sent = record()
    first, second = await post(await entitled("tiny"), sent), await post(await entitled("tiny"), sent | {"units": 2})
    assert (first.status_code, second.status_code) == (200, 200)
