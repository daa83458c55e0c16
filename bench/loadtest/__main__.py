"""Load by locust, by one command.

    python -m bench.loadtest                     a stack of its own for a minute, and a report in bench/results
    python -m bench.loadtest --page              locust's own page, against a stack of its own
    python -m bench.loadtest --ready FILE        against a `quotagate up` that runs: it says FILE when it starts
    python -m bench.loadtest --host URL --tokens FILE       against any gateway; a token or an API key a line
    python -m bench.loadtest --prepare FILE --ready READY   makes organizations and writes who calls: for more machines

What else is given goes to locust. It exits with 1 where a call failed or more was admitted than may be.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from bench import report
from bench.harness import exit_on_sigterm
from bench.installation import installation
from bench.loadtest.callers import Callers, CallersUnreadable, Paths, read_ready
from bench.loadtest.curves import CURVES, SECONDS_DEFAULT, USERS_DEFAULT
from bench.loadtest.preparing import ORGANIZATIONS, prepare

STOP_SECONDS, REPORT_SECONDS = 10, 5  # for users who are under way, and then for the report
PAGE_SECONDS = 5  # a page has no report
LOCUSTFILE = report.ROOT / "bench" / "locustfile.py"


def parsed(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m bench.loadtest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=USERS_DEFAULT, help="at most so many at once")
    parser.add_argument("--seconds", type=int, default=SECONDS_DEFAULT)
    parser.add_argument("--shape", choices=sorted(CURVES), default="day")
    parser.add_argument("--processes", type=int, default=1, help="of the load generator")
    parser.add_argument("--workers", type=int, default=1, help="of the gateway, in a stack of its own")
    parser.add_argument(
        "--organizations", type=int, default=ORGANIZATIONS, help="that are made; more are exhausted ones"
    )
    parser.add_argument("--plan", default="bulk", help="of the organizations that are made")
    parser.add_argument("--results", type=Path, default=report.RESULTS, metavar="DIR", help="where the report goes")
    parser.add_argument("--host", help="the gateway's address")
    parser.add_argument("--tokens", type=Path, metavar="FILE", help="a token or an API key a line, beside --host")
    parser.add_argument("--ready", type=Path, metavar="FILE", help="the ready.json of a `quotagate up` that runs")
    parser.add_argument("--page", action="store_true", help="locust's page, in place of a run")
    parser.add_argument("--prepare", type=Path, metavar="FILE", help="write who calls, and end")
    given, more = parser.parse_known_args(argv)
    if given.ready is None and os.environ.get("QUOTAGATE_READY"):
        given.ready = Path(os.environ["QUOTAGATE_READY"])
    if given.host and not given.tokens and not given.ready:
        parser.error("--host needs --tokens FILE, or the --ready FILE of its stack")
    if given.tokens and not given.host:
        parser.error("--tokens needs --host URL")
    if given.prepare and not given.ready:
        parser.error("--prepare needs --ready FILE")
    if min(given.users, given.seconds, given.processes, given.workers, given.organizations) <= 0:
        parser.error("--users, --seconds, --processes, --workers and --organizations are above 0")
    return given, more


def locust(given: argparse.Namespace, more: list[str], callers: Path | None, scratch: Path, folder: Path) -> int:
    env = dict(os.environ) | {"QUOTAGATE_LOAD_RESULT": str(folder / "load.json")}
    argv = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--skip-log-setup"]
    argv += (
        ["--callers", str(callers)]
        if callers is not None
        else ["--host", given.host, "--tokens", str(given.tokens.resolve())]
    )
    argv += ["--processes", str(given.processes)] if given.processes > 1 else []
    if given.page:
        env["QUOTAGATE_LOAD_SHAPE"] = "any"
        argv += ["--class-picker", "--web-host", "127.0.0.1"]
        print("Locust's page is at http://127.0.0.1:8089 (another port: --web-port). Ctrl-C ends it.", flush=True)
    else:
        env["QUOTAGATE_LOAD_SHAPE"] = given.shape
        argv += ["--headless", "--only-summary", "--users", str(given.users), "--run-time", f"{given.seconds}s"]
        argv += ["--html", str(folder / "load.html"), "--stop-timeout", str(STOP_SECONDS)]
    # What locust itself prints at its end says the same in other words.
    argv += ["--json-file", str(scratch / "locust")]
    with subprocess.Popen([*argv, *more], env=env, cwd=report.ROOT) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # A terminal interrupts it, too, and then it writes its report.
            with suppress(subprocess.TimeoutExpired):
                process.wait(PAGE_SECONDS if given.page else STOP_SECONDS + REPORT_SECONDS)
            return 130
        finally:
            process.kill()  # where it has not ended


def callers_of(given: argparse.Namespace, stack: ExitStack) -> Callers | None:
    """None where a file has tokens, which locust reads itself. Raises CallersUnreadable."""
    if given.tokens is not None:
        return None
    if given.ready is None:
        print("Starting a stack of its own", flush=True)
        data, facts = stack.enter_context(installation("--workers", str(given.workers)))
        return asyncio.run(prepare(facts, data, Paths(), given.plan, given.organizations))
    facts = read_ready(given.ready) | ({"gateway": given.host, "metrics": None} if given.host else {})
    without_tunnels = Paths(websocket=None)  # as the packaged settings are
    return asyncio.run(prepare(facts, given.ready.parent, without_tunnels, given.plan, given.organizations))


def main(argv: list[str] | None = None) -> int:
    given, more = parsed(argv)
    exit_on_sigterm()
    with ExitStack() as stack:
        try:
            callers = callers_of(given, stack)
        except CallersUnreadable as e:
            sys.stderr.write(f"{e}\n")
            return 2
        if given.prepare is not None and callers is not None:
            callers.write(given.prepare)
            print(f"{len(callers.ordinary) + len(callers.exhausted)} organizations; who calls is in {given.prepare}")
            return 0
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quotagate-load-")))
        file: Path | None = None
        if callers is not None:
            file = scratch / "callers.json"
            callers.write(file)
            print(_about(callers, given), flush=True)
        folder = report.todays_folder("load", given.results.resolve())
        status = locust(given, more, file, scratch, folder)
    return finished(folder, given, status)


def _about(callers: Callers, given: argparse.Namespace) -> str:
    return (
        f"{len(callers.ordinary)} organizations by Zipf's law, {len(callers.exhausted)} with {callers.allowance} units"
        f" each; gateway {callers.gateway}, {given.users} users, shape {given.shape}, {given.seconds} s"
    )


def finished(folder: Path, given: argparse.Namespace, status: int) -> int:
    result = folder / "load.json"
    if given.page or not result.exists():
        return status
    record = json.loads(result.read_text())
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    result.write_text(
        json.dumps({"benchmark": "load", "at": at, "machine": report.machine(), **record}, indent=1) + "\n"
    )
    page = folder / "load.html"
    shown = page.relative_to(report.ROOT) if page.is_relative_to(report.ROOT) else page
    print(f"\nReport: {shown}, and its figures in load.json beside it")
    return status


if __name__ == "__main__":
    sys.exit(main())
