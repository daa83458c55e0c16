"""`POST /v1/usage` while Redis or Postgres is away or errs: nothing is lost, and nothing is charged twice."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from redis.asyncio import Redis

from control.db import StoreUnavailable
from control.http.context import Context
from quota import keys
from quota.calls.call import Call
from quota.ledger import Ledger, LedgerUnavailable
from tests.control.plane import Entitled
from tests.control.reporting import Post, events, record, statuses
from tests.control.usage import used


async def test_an_organization_that_redis_does_not_know_is_loaded_once_for_all_and_charged_where_it_was(
    context: Context, entitled: Entitled, post: Post, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")
    await post(org, record(units=90))
    await redis.delete(keys.org_key(org, 32))
    loaded: list[str] = []
    install = type(context.publisher).install

    async def counted(self: Any, asked: str) -> Any:
        loaded.append(asked)
        return await install(self, asked)

    monkeypatch.setattr(type(context.publisher), "install", counted)
    answers = await asyncio.gather(*(post(org, record(units=1)) for _ in range(20)))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 10}
    assert loaded == [org]
    assert await used(context, org) == 100


async def test_without_postgres_usage_is_still_charged_and_only_what_must_be_loaded_is_503(
    context: Context, entitled: Entitled, post: Post, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")

    def away(*_: object) -> None:
        raise StoreUnavailable("Postgres: away")

    monkeypatch.setattr("control.db.Database.connection", away)
    assert (await post(org, record())).status_code == 200
    assert statuses(await post(org, [record(), record(units=-1)])) == [200, 422]
    assert await used(context, org) == 2
    await redis.delete(keys.org_key(org, 32))
    sent = record()
    response = await post(org, sent)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["type"] == "urn:quotagate:problem:store-unavailable"
    monkeypatch.undo()
    assert (await post(org, sent)).status_code == 200
    assert await used(context, org) == 3


async def test_without_redis_usage_is_503_with_retry_after_and_the_same_batch_again_is_charged_once(
    context: Context, entitled: Entitled, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("bulk")
    batch = [record() for _ in range(75)]
    run, takes = Ledger.run, 0

    async def lost(self: Ledger, call: Call) -> Any:
        nonlocal takes
        reply = await run(self, call)
        takes += call.script == "take"
        if takes == 2:
            raise LedgerUnavailable("take: the reply was lost")
        return reply

    monkeypatch.setattr(Ledger, "run", lost)
    response = await post(org, batch)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["type"] == "urn:quotagate:problem:ledger-unavailable"
    monkeypatch.undo()
    assert statuses(await post(org, batch)) == [200] * 75
    assert await used(context, org) == await events(context, org) == 75


async def test_a_record_that_redis_has_an_error_for_is_503_and_the_others_count(
    context: Context, entitled: Entitled, post: Post, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")
    odd = record()
    from control.usage import reporter

    await redis.rpush(keys.idempotency_key(org, 32, reporter._name_of(odd["idempotency_key"])), "no string")
    response = await post(org, [record(), odd, record()])
    assert statuses(response) == [200, 503, 200]
    assert response.json()["results"][1]["retry_after_seconds"] == 1
    assert await used(context, org) == 2
    alone = await post(org, odd)
    assert (alone.status_code, alone.headers["retry-after"]) == (503, "1")
    assert "WRONGTYPE" not in alone.text
