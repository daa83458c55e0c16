"""What a client gets while Redis cannot decide: a refusal soon, and an answer when Redis is back."""

import asyncio

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.gateway.rig import Gateway, Organization, get

DECISION_SECONDS = 30.0  # a decision is made within 250 ms, or late on a busy machine; Redis hangs until the test ends


async def refused(gateway: Gateway, organization: Organization, data: bytes | None = None) -> None:
    """503 soon, whatever Redis does."""
    loop = asyncio.get_running_loop()
    client = await gateway.connect()
    began = loop.time()
    answer = await client.ask(data or get("/", organization))
    assert loop.time() - began < DECISION_SECONDS
    assert (answer.status, answer["retry-after"]) == (503, "1")
    assert answer.problem["type"] == "urn:quotagate:problem:ledger-unavailable"


async def served(gateway: Gateway, organization: Organization) -> None:
    """The gateway serves again, after a time in which it may still refuse."""
    async with asyncio.timeout(60):
        while (await gateway.get("/", organization)).status != 200:  # noqa: ASYNC110 - it reconnects on its own
            await asyncio.sleep(0.01)


async def refuses(redis: Redis) -> str:
    try:
        await redis.ping()
    except ResponseError as e:
        return str(e).split(" ", 1)[0]
    return ""
