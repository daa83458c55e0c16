"""How soon a gateway serves: the whole of it, and a worker that takes the place of one that was killed.

    python -m bench.start [--rounds 7] [--quick]

Beside them are a bare interpreter and one that imports uvicorn, so that a reader sees what is ours. Each time ends with
the first 200 of `/-/ready`; that of a replaced worker begins when its predecessor is killed, and no process stands by
unless the row says so. All take turns, on the machine's cores as they are. Bytecode is written before anything counts.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

import psutil

from bench import report
from bench.harness import children
from bench.report import Bars, Goal, goals_table, table
from bench.traffic import ISSUER, SECRET
from devstack import valkey
from devstack.child import Child, spawn, stopping
from devstack.ports import LOOPBACK, free_port

WORKER_SECONDS_MAX = 0.5
ANSWER_SECONDS = 30.0
LOOK_SECONDS = 0.002
ENV = {"PYTHONDONTWRITEBYTECODE": ""}  # an installed gateway has its bytecode
BARE = {
    "python -c pass": "pass",
    "import uvicorn": "import uvicorn",
    "import gateway.process.worker": "import gateway.process.worker",
}
GATEWAY, REPLACED, STOOD_BY = "a gateway", "a worker, replaced", "a worker, replaced by who stood by"
"""Rows."""


def wait_ready(port: int) -> None:
    """Until `/-/ready` is answered by 200."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        connection = HTTPConnection(LOOPBACK, port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/-/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass  # nobody listens yet, or the worker that was asked has just been killed
        finally:
            connection.close()
        time.sleep(LOOK_SECONDS)
    raise SystemExit("the gateway does not become ready")


def bare_seconds(statement: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", statement], env=os.environ | ENV, check=True)
    return time.monotonic() - began


def workers_of(gateway: Child) -> list[int]:
    """The pids of the worker and of who stands by, in the order in which they were started."""
    return [pid for pid in children(gateway.process.pid) if "spawn_main" in " ".join(psutil.Process(pid).cmdline())]


def wait_standby(gateway: Child) -> None:
    """Until a second process has loaded everything, which shows in that it uses no more of the processor."""
    gateway.wait_until(lambda: len(workers_of(gateway)) == 2, ANSWER_SECONDS)
    standby, used = psutil.Process(workers_of(gateway)[1]), -1.0
    while (now := standby.cpu_times().user) != used or not used:
        used = now
        time.sleep(0.5)


def measure(directory: Path, redis: str, *, standby: bool) -> dict[str, float]:
    """Seconds of one gateway's life."""
    port, config = free_port(), directory / "gateway.yaml"
    content = {
        "redis": {"url": redis},
        "standby": standby,
        "access_log": {"path": str(directory / "access.log")},
        "auth": {"algorithms": ["HS256"], "secret": SECRET, "issuer": ISSUER},
        "upstreams": {"api": {"url": f"http://{LOOPBACK}:{port}"}},
        "routes": [{"path": "/", "upstream": "api"}],
    }
    config.write_text(json.dumps(content))  # which is YAML
    argv = [sys.executable, "-m", "quotagate", "gateway", "--config", str(config), "--port", str(port)]
    began = time.monotonic()
    with stopping(spawn("gateway", argv, log=directory / "gateway.err", env=ENV)) as gateway:
        wait_ready(port)
        started = time.monotonic() - began
        if standby:
            wait_standby(gateway)
        os.kill(workers_of(gateway)[0], signal.SIGKILL)
        began = time.monotonic()
        wait_ready(port)
        replaced = time.monotonic() - began
    return {STOOD_BY: replaced} if standby else {GATEWAY: started, REPLACED: replaced}


def one_round(directory: Path, redis: str) -> dict[str, float]:
    seconds = {name: bare_seconds(statement) for name, statement in BARE.items()}
    return seconds | measure(directory, redis, standby=False) | measure(directory, redis, standby=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="3 rounds, and no report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quotagate-bench-") as name, valkey.running(Path(name) / "valkey") as redis:
        one_round(Path(name), redis)  # which writes the bytecode
        rounds = [one_round(Path(name), redis) for _ in range(3 if options.quick else options.rounds)]
    medians = {row: median(each[row] for each in rounds) for row in rounds[0]}
    rows = [[row, f"{value:.3f}", spread(each[row] for each in rounds)] for row, value in medians.items()]
    times = table(["", "median, s", "lowest to highest, s"], rows)
    goals = [
        Goal("from the death of a worker to the next one's first answer", medians[REPLACED], WORKER_SECONDS_MAX, "s")
    ]
    print(f"{times}\n\n{goals_table(goals)}")
    if not options.quick:
        raw = {"options": {"rounds": options.rounds}, "rounds": rounds}
        bars = [Bars("seconds until it serves", medians)]
        folder = report.write("start", "How soon a gateway serves", [times], bars, goals, raw, report.machine())
        print(f"Written to {folder.relative_to(report.ROOT)}/start.json, .md and .svg")
    if not all(goal.met for goal in goals):
        raise SystemExit(1)


def spread(seconds: Iterable[float]) -> str:
    lowest, *_, highest = sorted(seconds)
    return f"{lowest:.3f} to {highest:.3f}"


if __name__ == "__main__":
    main()
