"""How each objective is measured. A probe takes the stack and returns the times of each part, in seconds."""

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from bench import webhooks
from bench.installation import Facts
from bench.loadtest.callers import Callers
from bench.open_loop.pacing import Outcome, paced
from bench.open_loop.targets import CONNECTIONS, target
from examples.site_client import ActivatedSite

DECISION = "/-/authorize/envoy/anything"  # the decision alone: nothing is forwarded
RECORDS = 1000  # of a batch: as many as one post may have
SITES = 10
WEBHOOKS_PER_SECOND = 10.0
TIMEOUT_SECONDS = 30.0

Times = Mapping[str, Sequence[float]]


class NotMeasured(Exception):
    """Why not, in one line."""


@dataclass(frozen=True, slots=True)
class Stack:
    facts: Facts
    callers: Callers
    seconds: float
    """Of each measurement."""
    rate: float
    """Decisions a second."""

    def control(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.facts['admin_token']}"}
        return httpx.AsyncClient(base_url=self.facts["control"], headers=headers, timeout=TIMEOUT_SECONDS)


Probe = Callable[[Stack], Awaitable[Times]]


async def quota_check(stack: Stack) -> Times:
    where = target("gateway", stack.callers.gateway, stack.callers.ordinary, DECISION)
    requests = where.traffic.requests()
    await paced(where.host, where.port, requests, stack.rate / 2, 1.0, CONNECTIONS)  # every organization is known then
    outcome = await paced(where.host, where.port, requests, stack.rate, stack.seconds, CONNECTIONS)
    return {f"a decision at {stack.rate:g}/s": _all_answered(outcome)}


async def ingest(stack: Stack) -> Times:
    """Single records at a rate, then batches one after the other."""
    caller = stack.callers.ordinary[0]
    single = await _posted(stack, caller.credential, 1, 100.0, stack.seconds)
    batches = await _posted(stack, caller.credential, RECORDS, 2.0, stack.seconds)
    return {"one record": single, f"{RECORDS:,} records": batches}


async def _posted(stack: Stack, credential: str, records: int, rate: float, seconds: float) -> Sequence[float]:
    url = urlsplit(stack.facts["control"])

    def requests() -> Iterator[bytes]:
        while True:
            each = [{"meter": "api_calls", "units": 1, "idempotency_key": uuid4().hex} for _ in range(records)]
            body = json.dumps(each[0] if records == 1 else each).encode()
            head = f"POST /v1/usage HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {credential}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            yield head.encode() + body

    return _all_answered(await paced(str(url.hostname), url.port or 80, requests(), rate, seconds, 8))


async def webhook_enforcement(stack: Stack) -> Times:
    return {"from Stripe to Redis": await webhooks.run(stack.facts, WEBHOOKS_PER_SECOND, stack.seconds)}


async def authentication(stack: Stack) -> Times:
    """Tokens that are issued and then shown for the first time, and sites that refresh theirs."""
    issued: list[float] = []
    tokens: list[str] = []
    async with stack.control() as control:
        for number in range(max(20, round(20 * stack.seconds))):
            org = stack.callers.ordinary[number % len(stack.callers.ordinary)].org
            began = time.perf_counter()
            answer = await control.post(f"/v1/organizations/{org}/tokens", json={"user": f"user-{number}"})
            issued.append(time.perf_counter() - began)
            tokens.append(_said(answer)["token"])
    first_seen = await _shown(stack, tokens)
    refreshed = await _refreshed(stack)
    return {"a token is issued": issued, "it is first seen": first_seen, "a site refreshes": refreshed}


async def _shown(stack: Stack, tokens: Sequence[str]) -> Sequence[float]:
    url = urlsplit(stack.callers.gateway)
    head = f"GET {DECISION} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer "
    requests = (f"{head}{token}\r\n\r\n".encode() for token in tokens)
    outcome = await paced(str(url.hostname), url.port or 80, requests, 50.0, len(tokens) / 50, 8)
    return _all_answered(outcome)


async def _refreshed(stack: Stack) -> list[float]:
    async with stack.control() as control:
        made = await control.post(
            f"/v1/organizations/{stack.callers.ordinary[0].org}/activation-codes", json={"sites": SITES}
        )
        code = _said(made)["code"]
    with tempfile.TemporaryDirectory(prefix="quotagate-slo-") as folder:
        numbers = count(1)
        sites = []
        for _ in range(SITES):
            number = next(numbers)
            site = ActivatedSite(
                stack.facts["control"], Path(folder) / str(number), f"https://shop-{number}.example.com"
            )
            await asyncio.to_thread(site.activate, code)
            sites.append(site)
        times: list[float] = []
        for site, _ in zip(cycle(sites), range(max(20, round(10 * stack.seconds)))):
            began = time.perf_counter()
            await asyncio.to_thread(site.refresh)
            times.append(time.perf_counter() - began)
    return times


PROBES: Mapping[str, Probe] = {
    "quota_check": quota_check,
    "ingest": ingest,
    "webhook_enforcement": webhook_enforcement,
    "authentication": authentication,
}
"""By the objective's name. `redis` is read from the gateway's own histogram, over all of them."""


def _all_answered(outcome: Outcome) -> Sequence[float]:
    """Raises NotMeasured where not every answer was 200: a refusal is quick."""
    if not outcome.ok():
        raise NotMeasured(f"not all answers were 200: {dict(outcome.statuses)}")
    return outcome.latencies


def _said(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise NotMeasured(f"{answer.request.method} {answer.request.url.path} was answered {answer.status_code}")
    return answer.json()
