"""Both planes in the test's own event loop, on Redis servers that are named by a URL, and what clients are given."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import pytest

from control.app import opened
from control.entitlements.catalogue import apply_plans
from control.http.context import Context
from control.journal import Author
from devstack.token_mint import AUDIENCE, ISSUER, mint
from gateway.settings.intervals import Intervals
from gateway.settings.root import GatewaySettings
from quota.ledger import LedgerError
from quotagate.diagnosis.stores import Skews, of_redis
from tests.control.plane import JWT_SECRET, admin_of, packaged_plans
from tests.faults.running import DEADLINE_SECONDS, control_settings
from tests.gateway.rig import PATIENT, Gateway, request, running, until


@dataclass(frozen=True)
class InLoop:
    """`tests.faults.running.Planes` without processes of their own."""

    dsn: str
    context: Context
    started: Gateway

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.started.port}"

    async def entitle(self, allowance: int) -> str:
        org = f"org-{uuid4().hex[:12]}"
        async with admin_of(self.context) as admin:
            assert (await admin.put(f"/v1/organizations/{org}", json={"name": org})).status_code == 201
            content = {"plan": "bulk", "meters": {"api_calls": allowance}, "policy": "HARD_STOP"}
            answer = await admin.put(f"/v1/entitlements/{org}", json=content)
            assert answer.status_code == 200, answer.text
        return org


@asynccontextmanager
async def planes(url: str, dsn: str, upstream: str) -> AsyncIterator[InLoop]:
    settings = control_settings(url, dsn)
    async with opened(settings, time.time) as context:
        await apply_plans(context.db, packaged_plans(), context.clock(), Author("tests", "tests"))
        async with context.background.running(), gateway(url, upstream) as started:
            yield InLoop(dsn, context, started)


async def told_by_all(url: str, dsn: str, upstream: str, told: str) -> None:
    """Neither plane works with this URL, and each says why, as the doctor does."""
    await told_by_control_and_doctor(url, dsn, told)
    async with gateway(url, upstream, start_seconds=0) as started:
        await until(lambda: any(told in str(entry.get("reason")) for entry in started.logs))
        assert not started.worker.link.accepts


async def told_by_control_and_doctor(url: str, dsn: str, told: str) -> None:
    with pytest.raises(LedgerError, match=re.escape(told)):
        async with opened(control_settings(url, dsn), time.time):
            pass
    found = await asyncio.to_thread(of_redis, url, Skews())  # it has an event loop of its own
    assert any(each.is_wrong and told in each.detail for each in found), found


async def status_of(started: Gateway, org: str) -> int:
    """What one request of the organization is answered."""
    token = mint(org, JWT_SECRET, now=time.time(), ttl=timedelta(hours=1))
    auth = b"Authorization: Bearer %b\r\n" % token.encode()
    return (await started.ask(request(auth, path="/status/200"))).status


@asynccontextmanager
async def gateway(url: str, upstream: str, *, start_seconds: float = DEADLINE_SECONDS) -> AsyncIterator[Gateway]:
    settings = {
        "redis": {"url": url, **PATIENT},
        "auth": {"algorithms": ["HS256"], "secret": JWT_SECRET, "issuer": ISSUER, "audience": AUDIENCE},
        "upstreams": {"sample": {"url": upstream}},
        "routes": [{"path": "/", "upstream": "sample"}],
        "access_log": {"path": "/dev/null"},
    }
    intervals = Intervals(start_seconds=start_seconds)
    async with running(GatewaySettings.model_validate(settings), intervals) as started:
        yield started
