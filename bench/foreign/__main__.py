"""A client's test-suite that nobody here wrote, against httpbin directly and through the gateway.

    python -m bench.foreign [--environment DIR]

The suite is that of `requests`, from its source distribution. It is installed with httpbin and all it needs, at the
versions of requirements.txt, into an environment of its own: a temporary one, or DIR, which is then kept and used
again. Three runs with one httpbin: directly; through the gateway on an exempt route; and through the gateway with a
token on each request, metered. A test that ends otherwise through the gateway is printed. Exits with 1 when there is
one that EXPLAINED does not name, or when an explanation is out of date.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

from redis.asyncio import Redis

from devstack import valkey
from devstack.child import spawn
from devstack.ports import free_port
from devstack.sample_process import answers
from devstack.token_mint import AUDIENCE, ISSUER, mint
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, Status
from quota.periods import CALENDAR_ANCHOR, monthly_periods

HERE = Path(__file__).parent
SUITE = "requests==2.32.5"
SECRET = "a secret for benchmarks, forty characters"
ORG = "foreign"
START_SECONDS_MAX, RUN_SECONDS_MAX = 60, 600

LEFT_OUT = {
    "connect_timeout": "dials an address that no network should answer, which is no httpbin",
    "total_timeout_connect": "as above",
}
"""Words of pytest's -k: tests that ask nothing of httpbin and depend on the network of the machine."""

HOP_BY_HOP = {
    "tests/test_requests.py::TestRequests::test_proxy_authorization_preserved_on_request": (
        "Proxy-Authorization is for the first proxy that asks for it, and ends there (RFC 9110, section 11.7.2)"
    ),
}
OWN_CREDENTIALS = [
    f"tests/test_requests.py::TestRequests::test_{name}"
    for name in (
        "BASICAUTH_TUPLE_HTTP_200_OK_GET",
        "DIGEST_AUTH_RETURNS_COOKIE",
        "DIGEST_HTTP_200_OK_GET",
        "auth_is_retained_for_redirect_on_host",
        "basicauth_with_netrc",
        "basicauth_with_netrc_leak",
    )
]
EXPLAINED: Mapping[str, Mapping[str, str]] = {
    "exempt": HOP_BY_HOP,
    "metered": HOP_BY_HOP
    | dict.fromkeys(OWN_CREDENTIALS, "the test sends Basic or Digest credentials where the token goes"),
}
"""By run and test: why it ends otherwise than directly. docs/conformance.md says the same."""

HTTPBIN = """
import sys
from httpbin import app
from pytest_httpbin.serve import Server
server = Server(port=int(sys.argv[1]), application=app)
server._server.serve_forever()
"""


def environment(directory: Path) -> tuple[Path, Path]:
    """The Python that has the suite's packages, and the folder that holds its tests."""
    python, installed = directory / "bin" / "python", directory / "installed"
    if not installed.exists():
        venv.create(directory, with_pip=True, clear=True)
        pip = (str(python), "-m", "pip", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "install", "--no-deps", "-r", str(HERE / "requirements.txt")], check=True)
        subprocess.run([*pip, "download", "--no-deps", "--no-binary", ":all:", "-d", str(directory), SUITE], check=True)
        with tarfile.open(next(directory.glob("*.tar.gz"))) as archive:
            archive.extractall(directory / "suite", filter="data")
        installed.touch()
    return python, next((directory / "suite").iterdir())


@contextmanager
def gateway(directory: Path, name: str, redis_url: str, upstream: int, route: str) -> Iterator[str]:
    """Yields the URL."""
    config, port = directory / f"{name}.yaml", free_port()
    config.write_text(
        f'redis: {{url: "{redis_url}"}}\n'
        f'auth: {{algorithms: [HS256], secret: "{SECRET}", issuer: {ISSUER}, audience: {AUDIENCE}}}\n'
        f'upstreams: {{httpbin: {{url: "http://127.0.0.1:{upstream}"}}}}\n'
        f"routes: [{{path: /, upstream: httpbin, {route}}}]\n"
    )
    command = [sys.executable, "-m", "quotagate", "gateway", "--config", str(config), "--port", str(port)]
    child = spawn(name, command, log=directory / f"{name}.log", grace_seconds=10)
    try:
        child.wait_until(lambda: answers(port, "/-/ready"), START_SECONDS_MAX)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stop()


@contextmanager
def httpbin(directory: Path, python: Path) -> Iterator[int]:
    """Yields the port."""
    port = free_port()
    child = spawn("httpbin", [str(python), "-c", HTTPBIN, str(port)], log=directory / "httpbin.log", grace_seconds=2)
    try:
        child.wait_until(lambda: answers(port, "/status/200"), START_SECONDS_MAX)
        yield port
    finally:
        child.stop()


def outcomes(python: Path, suite: Path, directory: Path, name: str, url: str, token: str | None) -> dict[str, str]:
    """How each test of the suite ended, with the last line of what it said where it did not pass."""
    outcomes_file = directory / f"{name}.jsonl"
    clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    command = [str(python), "-m", "pytest", "tests", "-q", "--no-header", "-p", "no:cacheprovider", "-W", "ignore"]
    command += ["-p", "plugin", "-p", "pytest_mock", "-k", " and ".join(f"not {word}" for word in LEFT_OUT)]
    with (directory / f"{name}.txt").open("wb") as output:
        subprocess.run(
            command,
            cwd=suite,
            env=clean
            | {
                "PYTHONPATH": str(HERE),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "FOREIGN_URL": url,
                "FOREIGN_OUTCOMES": str(outcomes_file),
                **({"FOREIGN_TOKEN": token} if token is not None else {}),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=RUN_SECONDS_MAX,
            check=False,
        )
    if not outcomes_file.exists():
        raise SystemExit(f"the suite did not run:\n{(directory / f'{name}.txt').read_text()}")
    outcomes: dict[str, str] = {}
    for line in map(json.loads, outcomes_file.read_text().splitlines()):
        outcomes[line["test"]] = line["outcome"] if line["outcome"] != "failed" else " ".join(["failed:", *line["why"]])
    return outcomes


def kind(outcome: str | None) -> str:
    """What is compared: how a failure is worded may hold a port."""
    return "missing" if outcome is None else outcome.partition(":")[0]


async def used(redis_url: str, limit: int | None = None) -> int:
    """Units charged; publishes the organization first where a limit is given."""
    async with Redis.from_url(redis_url) as redis:
        ledger = Ledger(redis)
        if limit is not None:
            await ledger.check_layout()
            periods = monthly_periods(CALENDAR_ANCHOR, time.time())
            meters = (MeterLimit("api_calls", limit),)
            await ledger.publish(Entitlement(ORG, 1, Status.ACTIVE, meters=meters, periods=periods))
        balance = await ledger.peek(ORG)
        return sum(usage.used for usage in balance.usage) if balance else 0


def differences(direct: Mapping[str, str], through: Mapping[str, str], explained: Mapping[str, str]) -> int:
    """Prints them, and returns how many are not explained or no longer there."""
    wrong = 0
    differing = [test for test in sorted({*direct, *through}) if kind(direct.get(test)) != kind(through.get(test))]
    for test in differing:
        why = explained.get(test)
        wrong += why is None
        print(f"  {test}\n    directly {direct.get(test)}, through the gateway {through.get(test)}")
        print(f"    {why or 'NOT EXPLAINED'}")
    for test in sorted({*explained} - {*differing}):
        wrong += 1
        print(f"  {test}: explained, but there is no difference")
    return wrong


def main(kept: Path | None) -> int:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quotagate-foreign-")))
        python, suite = environment(kept or directory / "environment")
        redis_url = stack.enter_context(valkey.running(directory / "valkey"))
        asyncio.run(used(redis_url, limit=10**9))
        upstream = stack.enter_context(httpbin(directory, python))
        token = mint(ORG, SECRET, now=time.time(), ttl=timedelta(hours=1))
        direct = outcomes(python, suite, directory, "direct", f"http://127.0.0.1:{upstream}", None)
        passed = sum(outcome == "passed" for outcome in direct.values())
        print(f"directly: {passed} of {len(direct)} tests of {SUITE} pass")
        for test, outcome in direct.items():
            if kind(outcome) == "failed":
                print(f"  {test}: {outcome}")
        wrong = 0
        for name, route, sent in (("exempt", "exempt: true", None), ("metered", "meters: {api_calls: 1}", token)):
            with gateway(directory, name, redis_url, upstream, route) as url:
                through = outcomes(python, suite, directory, name, url, sent)
            passed = sum(outcome == "passed" for outcome in through.values())
            print(f"through the gateway, {name}: {passed} of {len(through)} pass", flush=True)
            wrong += differences(direct, through, EXPLAINED[name])
        charged = asyncio.run(used(redis_url))
        print(f"units charged in the metered run: {charged}")
        return int(wrong > 0 or charged == 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, help="a folder for the suite's packages, kept for the next time")
    sys.exit(main(parser.parse_args().environment))
