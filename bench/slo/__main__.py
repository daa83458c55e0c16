"""Whether what was promised is kept: `make slo`.

    python -m bench.slo [--seconds 10] [--rate 300] [--strict] [--json]

It starts a stack of its own, keeps a gateway busy beside it all, and measures each objective of `slos` in
config/observability.yaml. It exits with 1 where a promise is missed, and with --strict also where a tighter bound is
that we hold beside it. The result is in bench/results/<day>/slo.json; --json prints it, and nothing else, on standard
output.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from bench import report
from bench.busyness import IDLE_LIMIT, idle_share, machine_times
from bench.installation import installation
from bench.loadtest.callers import Callers, CallersUnreadable, Paths
from bench.loadtest.preparing import prepare
from bench.scrape import Scrape, scrape
from bench.slo.objectives import Measured, Objective, ObjectiveUnreadable, judged, read, shown, verdict
from bench.slo.probes import PROBES, NotMeasured, Stack

Say = Callable[[str], None]
BACKGROUND_PER_SECOND = 50
TAKES = "quotagate_take_seconds"


@contextmanager
def background(callers: Callers, directory: Path) -> Iterator[None]:
    """Other requests of other clients, in a process of their own, so that they do not wait for what is measured."""
    file = directory / "callers.json"
    callers.write(file)
    argv = [sys.executable, "-m", "bench.open_loop", "--callers", str(file)]
    argv += ["--rates", str(BACKGROUND_PER_SECOND), "--seconds", "3600"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, cwd=report.ROOT)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


async def probed(objectives: Mapping[str, Objective], stack: Stack, say: Say) -> list[Measured]:
    results = []
    for name, objective in objectives.items():
        if name == "redis":
            continue
        say(f"  {name}: {objective.about}")
        if (probe := PROBES.get(name)) is None:
            results.append(Measured(objective, failure="bench/slo/probes.py has no probe of this name"))
            continue
        try:
            results.append(judged(objective, await probe(stack)))
        except NotMeasured as e:
            results.append(Measured(objective, failure=str(e)))
    return results


def of_redis(objective: Objective, counted: Scrape) -> Measured:
    """By the gateway's own histogram: at most the upper bound of the bucket in which the share is reached."""
    bound = counted.quantile_bound(TAKES, objective.share)
    if bound is None:
        return Measured(objective, failure=f"{TAKES} counted nothing")
    return Measured(objective, {"a take": bound}, round(counted.total(f"{TAKES}_count")))


def measured(seconds: float, rate: float, say: Say) -> tuple[list[Measured], float | None]:
    """And the share of the machine's time in which nothing ran meanwhile."""
    objectives = read()
    say("Starting a stack of its own")
    with installation() as (data, facts):
        callers: Callers = asyncio.run(prepare(facts, data, Paths()))
        with background(callers, data.parent):
            before, times = scrape(facts["metrics"]), machine_times()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                results = runner.run(probed(objectives, Stack(facts, callers, seconds, rate), say))
            idle = idle_share(times, machine_times())
            time.sleep(1.5)  # a gateway's workers write what they have counted once a second
            counted = scrape(facts["metrics"]).since(before)
    if "redis" in objectives:
        results.append(of_redis(objectives["redis"], counted))
    return sorted(results, key=lambda each: list(objectives).index(each.objective.name)), idle


def written(results: Sequence[Measured], idle: float | None, options: Mapping[str, float]) -> dict[str, Any]:
    folder = report.todays_folder("slo")
    record = {
        "benchmark": "slo",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": report.machine(),
        "options": {**options, "background_per_second": BACKGROUND_PER_SECOND},
        "machine_idle": idle,
        "kept": all(each.kept for each in results),
        "held": all(each.held for each in results),
        "verdict": verdict(results),
        "objectives": [each.record() for each in results],
    }
    (folder / "slo.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def about(idle: float | None) -> str:
    if idle is None:
        return ""
    if idle < IDLE_LIMIT:
        return (
            f"The machine was busy: {idle:.0%} of its time was idle. What is missed on it may be kept on a quiet one.\n"
        )
    return f"{idle:.0%} of the machine's time was idle.\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.slo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=300.0, help="decisions a second")
    parser.add_argument("--strict", action="store_true", help="exit with 1 for the tighter bounds, too")
    parser.add_argument("--json", action="store_true", help="the result on standard output, and nothing else")
    given = parser.parse_args()
    if given.seconds < 1 or given.rate <= 0:
        parser.error("--seconds is at least 1, and --rate above 0")

    def say(line: str) -> None:
        print(line, file=sys.stderr if given.json else sys.stdout, flush=True)

    try:
        results, idle = measured(given.seconds, given.rate, say)
    except (CallersUnreadable, ObjectiveUnreadable) as e:
        sys.stderr.write(f"{e}\n")
        return 2
    record = written(results, idle, {"seconds": given.seconds, "rate": given.rate})
    if given.json:
        print(json.dumps(record, indent=1))
    else:
        print(f"\n{shown(results)}\n\n{about(idle)}The result for machines: bench/results/{record['at'][:10]}/slo.json")
    return 0 if record["held"] or (record["kept"] and not given.strict) else 1


if __name__ == "__main__":
    sys.exit(main())
