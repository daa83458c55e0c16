"""A `quotagate up` of a benchmark's own: nothing is left of it afterwards, and nobody else's data is touched."""

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

from bench.harness import exit_on_sigterm
from devstack import gateway_settings
from devstack.ports import LOOPBACK, free_port

START_SECONDS = 120.0
STOP_SECONDS, HURRY_SECONDS = 30.0, 10.0
Facts = dict[str, Any]
"""What ready.json says."""
ROUTES: Final = re.compile(r"^routes:\n", re.MULTILINE)
ASKING_PROXIES: Final = re.compile(r"^(forward_auth:.*\n  trusted: )\[\]", re.MULTILINE)
TUNNEL_ROUTE = (
    "  - {path: /ws, upstream: sample, upgrades: [websocket], tunnel: {charge: {api_calls: 1}, per: message}}\n"
)


@contextmanager
def stack(directory: Path, *flags: str, control_port: int = 0) -> Iterator[Facts]:
    """A `quotagate up` on this data directory; what its ready.json says, and the double's key."""
    argv = [sys.executable, "-m", "quotagate", "up", "--data-dir", str(directory), *flags]
    argv += ["--gateway-port", "0", "--control-port", str(control_port)]
    output_file = directory.parent / "up.log"
    with output_file.open("wb") as output:
        # A group of its own: a Ctrl-C is for the benchmark, which then ends the stack.
        process = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, process_group=0)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not (directory / "ready.json").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the stack did not start:\n{output_file.read_text()}")
                time.sleep(0.1)
            facts = json.loads((directory / "ready.json").read_text())
            yield {**facts, "stripe_key": json.loads((directory / "secrets.json").read_text())["stripe_key"]}
        finally:
            end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ctrl-C once, and once more where it takes long, or where somebody presses it again: then it hurries. Nothing
    of it is left in any case: it is in no group that a terminal's Ctrl-C reaches."""
    for seconds in (STOP_SECONDS, HURRY_SECONDS):
        process.send_signal(signal.SIGINT)
        try:
            process.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue
        return
    process.kill()
    process.wait()


@contextmanager
def installation(*flags: str) -> Iterator[tuple[Path, Facts]]:
    """The data directory and the facts of a stack whose gateway also carries WebSockets below `/ws`, and answers
    forward-auth to this machine."""
    exit_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="quotagate-bench-") as name:
        Path(name).chmod(0o711)  # under root, PostgreSQL runs as another user
        data, config, control_port = Path(name) / "data", Path(name) / "gateway.yaml", free_port()
        config.write_text(settings(f"http://{LOOPBACK}:{control_port}"))
        with stack(data, "--gateway-config", str(config), *flags, control_port=control_port) as facts:
            yield data, facts


def settings(control_url: str) -> str:
    """The gateway's settings of `quotagate up`, and what only benchmarks ask for."""
    packaged = resources.files("config").joinpath("gateway.yaml").read_text(encoding="utf-8")
    with_tunnels, routes = ROUTES.subn(f"routes:\n{TUNNEL_ROUTE}", packaged)
    with_proxies, proxies = ASKING_PROXIES.subn(rf"\g<1>[{LOOPBACK}]", with_tunnels)
    if routes != 1 or proxies != 1:
        raise SystemExit("config/gateway.yaml is written in another way than bench/installation.py adds to")
    return gateway_settings.with_issuer(with_proxies, control_url)
