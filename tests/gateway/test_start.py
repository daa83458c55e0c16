"""What the processes of a gateway load, and what they leave to others."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from devstack.token_mint import AUDIENCE, ISSUER

# As multiprocessing does in a worker's process: the module of the command again, then what uvicorn asks for.
WORKER = """
import asyncio, gc, json, sys
from pathlib import Path
import quotagate.__main__
from common.settings_file import load
from gateway.process.server import configured
from gateway.settings.root import GatewaySettings

config = configured(load(Path(sys.argv[1]), "", GatewaySettings), Path(sys.argv[2]))
supervisor = sorted(sys.modules)
gc.disable()
config.load()
asyncio.run(config.lifespan_class(config).startup())
print(json.dumps({"supervisor": supervisor, "worker": sorted(sys.modules), "collects": gc.isenabled()}))
"""
ELSEWHERE = {"fastapi", "starlette", "typer", "stripe", "httpx", "prometheus_client", "control", "devstack"}
"""Packages that a worker has no use for, or not at its start."""
ON_THE_WAY = ("gateway.client", "gateway.exchange", "gateway.decision", "gateway.ledger", "gateway.upstream")


async def started(directory: Path, redis_url: str) -> dict[str, list[str]]:
    """What a worker says of itself when it has started. No upstream has probes, and the secret is in the settings."""
    content = {
        "redis": {"url": redis_url},
        "auth": {"algorithms": ["HS256"], "secret": "s" * 32, "issuer": ISSUER, "audience": AUDIENCE},
        "upstreams": {"api": {"url": "http://127.0.0.1:9"}},
        "routes": [{"path": "/", "upstream": "api"}],
    }
    file = directory / "gateway.yaml"
    file.write_text(json.dumps(content))  # which is YAML
    command = [sys.executable, "-c", WORKER, str(file), str(directory)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True, timeout=120)
    said: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return said


async def test_a_worker_imports_no_web_framework_no_command_line_no_stripe(tmp_path: Path, redis_url: str) -> None:
    said = await started(tmp_path, redis_url)
    assert "gateway.process.worker" in said["worker"]
    assert {name.partition(".")[0] for name in said["worker"]} & ELSEWHERE == set()


async def test_the_supervisor_imports_nothing_that_is_on_a_requests_way(tmp_path: Path, redis_url: str) -> None:
    said = await started(tmp_path, redis_url)
    assert [name for name in said["supervisor"] if name.startswith(ON_THE_WAY)] == []


async def test_a_worker_that_has_started_collects_garbage_again(tmp_path: Path, redis_url: str) -> None:
    assert (await started(tmp_path, redis_url))["collects"]
