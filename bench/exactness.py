"""Over-admission, as a number: N gateway processes, one organization with limit L, 3 L requests at once.

    python -m bench.exactness [--runs 20] [--limit 1000] [--workers 4] [--connections 256]

Starts a stack of its own. Each run makes an organization, fires, and compares four independent counts: answers with
200, requests that reached the upstream, usage events in PostgreSQL, and units used in Redis. All must be L.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import jwt
import uvloop

from bench.load import fire
from devstack.sample_process import hits

READY_SECONDS = 60
SETTLE_SECONDS = 20  # the writer has this long to bring the last events into PostgreSQL


def start(data_dir: Path, workers: int) -> tuple["subprocess.Popen[bytes]", dict[str, Any]]:
    command = [sys.executable, "-m", "quotagate", "up", "--data-dir", str(data_dir)]
    command += ["--gateway-port", "0", "--control-port", "0", "--workers", str(workers)]
    stack = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    ready = data_dir / "ready.json"
    deadline = time.monotonic() + READY_SECONDS
    while not ready.exists():
        if stack.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the stack did not start")
        time.sleep(0.1)
    return stack, json.loads(ready.read_text())


async def one_run(ready: dict[str, Any], secret: str, org: str, limit: int, connections: int) -> bool:
    headers = {"authorization": f"Bearer {ready['admin_token']}"}
    async with httpx.AsyncClient(base_url=ready["control"], headers=headers) as control:
        (await control.put(f"/v1/organizations/{org}", json={"name": org})).raise_for_status()
        entitlement = {"plan": "tiny", "meters": {"api_calls": limit}}
        (await control.put(f"/v1/entitlements/{org}", json=entitlement)).raise_for_status()
        claims = {"org_id": org, "iss": "quotagate-dev", "aud": "quotagate", "exp": int(time.time()) + 3600}
        token = jwt.encode(claims, secret, "HS256")
        began = time.perf_counter()
        statuses = await fire(f"{ready['gateway']}/anything/exact", token, 3 * limit, connections)
        seconds = time.perf_counter() - began
        reached = hits(ready["upstream"])["by_org"].get(org, 0)
        entitlement_now = (await control.get(f"/v1/entitlements/{org}")).raise_for_status().json()
    used = entitlement_now["meters"][0]["used"]
    rows = await events(ready["postgres"], org, limit)
    others = {status: n for status, n in statuses.items() if status not in (200, 429)}
    exact = statuses == {200: limit, 429: 2 * limit} and reached == used == rows == limit
    print(
        f"{org}  200: {statuses[200]}  429: {statuses[429]}  other: {others or 0}"
        f"  upstream: {reached}  used: {used}  events: {rows}  over: {max(reached, used, rows) - limit}"
        f"  under: {limit - min(reached, used, rows)}  {3 * limit / seconds:.0f}/s  {'exact' if exact else 'WRONG'}"
    )
    return exact


async def events(dsn: str, org: str, expected: int) -> int:
    """Events of the organization in PostgreSQL, once they are as many as expected or the time is up."""
    connection = await asyncpg.connect(dsn)
    try:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            rows: int = await connection.fetchval("SELECT count(*) FROM usage_event WHERE org = $1", org)
            if rows >= expected or time.monotonic() > deadline:
                return rows
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


def main(runs: int, limit: int, workers: int, connections: int) -> int:
    with tempfile.TemporaryDirectory(prefix="quotagate-bench-") as directory:
        data_dir = Path(directory)
        data_dir.chmod(0o711)
        stack, ready = start(data_dir, workers)
        try:
            secret = json.loads((data_dir / "secrets.json").read_text())["jwt_secret"]
            exact = [
                uvloop.run(one_run(ready, secret, f"exact-{n:02d}", limit, connections)) for n in range(1, runs + 1)
            ]
        finally:
            stack.terminate()
            stack.wait(30)
    print(f"{sum(exact)} of {runs} runs exact: {workers} processes, {connections} connections, limit {limit}")
    return 0 if all(exact) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--connections", type=int, default=256)
    options = parser.parse_args()
    sys.exit(main(options.runs, options.limit, options.workers, options.connections))
