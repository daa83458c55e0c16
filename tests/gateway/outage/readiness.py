"""Whether a gateway is ready, and when it serves again."""

import asyncio
import json

from tests.gateway.rig import Gateway, Organization

PATIENCE_SECONDS = 60
TIMES = {"budget_ms": 2_000}  # for finding another Redis, too; a slow machine is no slow Redis


async def until_served(gateway: Gateway, organization: Organization) -> int:
    """How many requests were refused before one was served."""
    refused = 0
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (answer := await gateway.get("/", organization)).status != 200:
            assert answer.problem["type"] == "urn:quotagate:problem:ledger-unavailable"
            refused += 1
            await asyncio.sleep(0.01)
    return refused


async def ready(gateway: Gateway) -> tuple[int, list[str]]:
    answer = await gateway.get("/-/ready")
    return answer.status, json.loads(answer.body)["faults"]


async def until_ready(gateway: Gateway) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await ready(gateway))[0] != 200:  # noqa: ASYNC110 - it looks on its own
            await asyncio.sleep(0.01)
