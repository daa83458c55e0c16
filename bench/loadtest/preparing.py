"""Makes the organizations of a load test through the control API, the same ones each time."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from bench.loadtest.callers import Caller, Callers, CallersUnreadable, Paths
from devstack import token_mint
from devstack.child import StackError
from devstack.datadir import read_secrets

ORGANIZATIONS, ALLOWANCE = 100, 50
PER_EXHAUSTED = 5  # ordinary organizations for each that is exhausted
METER = "api_calls"
UNLIMITED = 10**12
LIFE = timedelta(days=1)  # of tokens and keys: they end by themselves
AT_ONCE = 16
TIMEOUT_SECONDS = 30.0


async def prepare(
    ready: Mapping[str, Any], directory: Path, paths: Paths, plan: str = "bulk", organizations: int = ORGANIZATIONS
) -> Callers:
    """`directory`: where the ready.json is, beside the secret that signs tokens, if it is there. Raises
    CallersUnreadable where the control plane does not do what is needed."""
    headers = {"authorization": f"Bearer {ready['admin_token']}"}
    async with httpx.AsyncClient(base_url=ready["control"], headers=headers, timeout=TIMEOUT_SECONDS) as control:
        try:
            return await _Preparing(control, ready, _secret(directory), plan).all(paths, organizations)
        except httpx.TransportError as e:
            raise CallersUnreadable(f"the control plane at {ready['control']} does not answer: {e}") from e
        except httpx.HTTPStatusError as e:
            called = f"{e.request.method} {e.request.url.path}"
            raise CallersUnreadable(f"{called} was answered {e.response.status_code}: {e.response.text}") from e


class _Preparing:
    def __init__(self, control: httpx.AsyncClient, ready: Mapping[str, Any], secret: str | None, plan: str) -> None:
        self._control = control
        self._ready = ready
        self._secret = secret
        self._plan = plan
        self._free = asyncio.Semaphore(AT_ONCE)

    async def all(self, paths: Paths, organizations: int) -> Callers:
        plans = (await self._control.get("/v1/plans")).raise_for_status().json()["plans"]
        codes = [plan["code"] for plan in plans if not plan["archived"]]
        if self._plan not in codes:
            raise CallersUnreadable(f"no plan is called {self._plan!r}; --plan takes one of {', '.join(codes)}")
        ordinary = [self._caller(f"load-{at:03}", UNLIMITED, key=at % 2 == 1) for at in range(1, organizations + 1)]
        few = range(1, max(1, organizations // PER_EXHAUSTED) + 1)
        exhausted = [self._caller(f"load-spent-{at:02}", ALLOWANCE, key=at % 2 == 1) for at in few]
        made = await asyncio.gather(*ordinary, *exhausted, self._caller("load-changing", UNLIMITED, key=False))
        return Callers(
            gateway=self._ready["gateway"],
            ordinary=tuple(made[:organizations]),
            exhausted=tuple(made[organizations:-1]),
            allowance=ALLOWANCE,
            changing=made[-1],
            plan=self._plan,
            control=self._ready["control"],
            admin_token=self._ready["admin_token"],
            upstream=self._ready.get("upstream"),
            metrics=self._ready.get("metrics"),
            paths=paths,
        )

    async def _caller(self, org: str, allowance: int, *, key: bool) -> Caller:
        async with self._free:
            if (await self._control.get(f"/v1/entitlements/{org}")).status_code == httpx.codes.NOT_FOUND:
                (await self._control.put(f"/v1/organizations/{org}", json={"name": org})).raise_for_status()
                terms = {"plan": self._plan, "policy": "HARD_STOP", "meters": {METER: allowance}}
                (await self._control.put(f"/v1/entitlements/{org}", json=terms)).raise_for_status()
            if self._secret is not None and not key:
                return Caller(org, token_mint.mint(org, self._secret, now=time.time(), ttl=LIFE))
            content = {"name": "load test", "expires_at": (datetime.now(UTC) + LIFE).isoformat()}
            answer = await self._control.post(f"/v1/organizations/{org}/keys", json=content)
            return Caller(org, answer.raise_for_status().json()["key"])


def _secret(directory: Path) -> str | None:
    """That of `quotagate up`; None where tokens are signed by somebody else, and all callers have keys."""
    try:
        return read_secrets(directory).jwt_secret
    except (StackError, TypeError):
        return None
