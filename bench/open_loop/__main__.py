"""Latencies at fixed rates, without coordinated omission.

    python -m bench.open_loop [--rates 500,1000,2000] [--seconds 10] [--quick]      a gateway in front of nginx
    python -m bench.open_loop --ready FILE                                         a `quotagate up` that runs
    python -m bench.open_loop --host URL --tokens FILE                             any gateway

Requests are due at even intervals and their latency counts from then on, so that a stall is seen by all that were due
in it (bench/open_loop/pacing.py). Beside it stands what a client would have measured that waits for each answer. On a
stack of its own, the gateway has one core; load, nginx behind it and Valkey share the other, and the same rates go to
that nginx directly: what is between the two is the gateway's. Requests are those of bench/traffic.py: no head comes
twice.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import uvloop

from bench import report
from bench.harness import TOOLS, require
from bench.loadtest.callers import Callers, CallersUnreadable, Paths, from_tokens, read_ready
from bench.loadtest.preparing import prepare
from bench.open_loop.pacing import Outcome, paced, quantile
from bench.open_loop.targets import CONNECTIONS, Target, target
from bench.report import Bars, Goal, goals_table, table
from bench.site import Site
from bench.traffic import ORGS, varied
from devstack.ports import LOOPBACK

RATES = (500, 1000, 2000)
WARM_UP_SECONDS = 2.0
GOALS_MS = {500: 5.0, 1000: 10.0, 2000: 20.0}
"""For the p99 of an admitted request on a stack of its own, by requests a second."""
LATE_MS = 1.0  # a generator that is later than this at p99 is part of what it measures
SHARES = (0.5, 0.9, 0.99, 0.999)


def row(name: str, outcome: Outcome) -> list[str]:
    ms = [f"{quantile(outcome.latencies, share) * 1000:.2f}" for share in SHARES]
    longest = f"{quantile(outcome.latencies, 1) * 1000:.1f}"
    closed = f"{quantile(outcome.service_times, 0.99) * 1000:.2f}"
    late = quantile(outcome.lateness, 0.99) * 1000
    lateness = f"**{late:.2f}**" if late > LATE_MS else f"{late:.2f}"
    others = {status: count for status, count in outcome.statuses.items() if status != 200}
    bad = ", ".join(f"{count} {status}" for status, count in others.items()) or "0"
    return [f"{outcome.rate:,.0f}", name, f"{outcome.answered_per_second:,.0f}", bad, *ms, longest, closed, lateness]


HEAD = ["due/s", "at", "answered/s", "not 200", "p50 ms", "p90", "p99", "p99.9", "longest"]
HEAD += ["p99 of a closed loop", "generator late, p99"]


async def measure(targets: Sequence[Target], rates: Sequence[float], seconds: float) -> list[tuple[str, Outcome]]:
    outcomes, requests = [], {each.name: each.traffic.requests() for each in targets}
    for each in targets:
        await paced(each.host, each.port, requests[each.name], min(rates), WARM_UP_SECONDS, CONNECTIONS)
    for rate in rates:
        for each in targets:
            outcome = await paced(each.host, each.port, requests[each.name], rate, seconds, CONNECTIONS)
            print("  " + "  ".join(row(each.name, outcome)[:9]), flush=True)
            outcomes.append((each.name, outcome))
    return outcomes


def goals_of(outcomes: Sequence[tuple[str, Outcome]]) -> Iterator[Goal]:
    for name, outcome in outcomes:
        if name == "gateway" and outcome.rate in GOALS_MS:
            about = f"p99 at {outcome.rate:,.0f} requests/s, from when each was due"
            yield Goal(about, quantile(outcome.latencies, 0.99) * 1000, GOALS_MS[int(outcome.rate)], "ms")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.open_loop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", type=rates, default=list(RATES), help="requests a second: 500,1000")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each rate")
    parser.add_argument("--host", help="the gateway's address")
    parser.add_argument("--tokens", type=Path, metavar="FILE", help="a token or an API key a line, beside --host")
    parser.add_argument("--ready", type=Path, metavar="FILE", help="the ready.json of a `quotagate up` that runs")
    parser.add_argument("--callers", type=Path, metavar="FILE", help="what bench.loadtest --prepare wrote")
    parser.add_argument("--prefix", default="/anything", help="of all paths, with --host or --ready")
    parser.add_argument("--quick", action="store_true", help="3 seconds of each rate, and no report")
    given = parser.parse_args()
    if bool(given.host) != bool(given.tokens):
        parser.error("--host and --tokens go together")
    if min(given.rates) <= 0 or given.seconds <= 0:
        parser.error("--rates and --seconds are above 0")
    return given


def rates(text: str) -> list[float]:
    return [float(each) for each in text.split(",")]


def targets_of(given: argparse.Namespace, stack: ExitStack) -> list[Target]:
    """Raises CallersUnreadable."""
    if given.tokens is not None:
        callers = from_tokens(given.tokens, given.host, Paths())
        return [target("gateway", callers.gateway, callers.ordinary, given.prefix)]
    if given.callers is not None or given.ready is not None:
        callers = (
            asyncio.run(prepare(read_ready(given.ready), given.ready.parent, Paths()))
            if given.callers is None
            else Callers.read(given.callers)
        )
        return [target("gateway", callers.gateway, callers.ordinary, given.prefix)]
    require({name: TOOLS[name] for name in ("nginx", "taskset")})
    site = stack.enter_context(Site())
    site.redis()
    upstream = site.upstream()
    gateway = site.gateway(upstream.port)
    print(f"The gateway has a core of its own, and {gateway.runs}.")
    traffic = varied(ORGS)
    return [Target("nginx", LOOPBACK, upstream.port, traffic), Target("gateway", LOOPBACK, gateway.port, traffic)]


def main() -> int:
    given = parsed()
    seconds = 3.0 if given.quick else given.seconds
    with ExitStack() as stack:
        try:
            targets = targets_of(given, stack)
        except CallersUnreadable as e:
            sys.stderr.write(f"{e}\n")
            return 2
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                outcomes = runner.run(measure(targets, given.rates, seconds))
        except OSError as e:
            sys.stderr.write(f"{targets[0].host}:{targets[0].port} cannot be reached: {e}\n")
            return 2
    shown, goals = table(HEAD, [row(name, outcome) for name, outcome in outcomes]), []
    print(f"\n{shown}\n")
    own = len(targets) > 1
    if own:
        goals = list(goals_of(outcomes))
        print(goals_table(goals))
    if own and not given.quick:
        write(shown, outcomes, goals, seconds)
    failed = any(name == "gateway" and not outcome.ok() for name, outcome in outcomes)
    return 1 if failed or not all(goal.met for goal in goals) else 0


def write(shown: str, outcomes: Sequence[tuple[str, Outcome]], goals: Sequence[Goal], seconds: float) -> None:
    raw = {
        "options": {"seconds": seconds, "connections": CONNECTIONS},
        "outcomes": [
            {
                "at": name,
                "rate": outcome.rate,
                "statuses": {str(status): count for status, count in outcome.statuses.items()},
                "latency_ms": {str(share): quantile(outcome.latencies, share) * 1000 for share in (*SHARES, 1.0)},
                "closed_loop_ms": {str(share): quantile(outcome.service_times, share) * 1000 for share in SHARES},
                "late_p99_ms": quantile(outcome.lateness, 0.99) * 1000,
            }
            for name, outcome in outcomes
        ],
    }
    bars = [
        Bars(
            f"p99 in ms at {rate:,.0f} requests/s",
            {name: quantile(each.latencies, 0.99) * 1000 for name, each in outcomes if each.rate == rate},
        )
        for rate in dict.fromkeys(outcome.rate for _, outcome in outcomes)
    ]
    title = "Latency at fixed rates, from when each request was due"
    folder = report.write("open_loop", title, [shown], bars, goals, raw, report.machine())
    print(f"Written to {folder.relative_to(report.ROOT)}/open_loop.json, .md and .svg")


if __name__ == "__main__":
    sys.exit(main())
