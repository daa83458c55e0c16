"""Quotagate beside plain nginx and beside nginx + Lua + Redis: CPU, throughput and latency of one request, in one run.

    python -m bench.peers [--rounds 5] [--seconds 5] [--single-seconds 3] [--connections 64]

Needs nginx, wrk and Debian's Lua module (what is missing is named with its package). nginx + Lua + Redis does what a
vendor would otherwise build: it verifies the token, runs the same `take` on the same Valkey, sets the same fields
(bench/peer/quota.lua). CPU is user and system time of the proxy's worker from /proc. The proxies take turns in every
round, so that noise of the machine affects all of them. Figures are medians of the rounds. A run takes three minutes.
"""

import argparse
import statistics
import sys
from dataclasses import asdict, dataclass

import redis

from bench import report
from bench.harness import (
    LUA_FILES,
    ORG,
    SPENT_ORG,
    TARGET,
    TOOLS,
    Load,
    Proxy,
    Site,
    answer,
    cpu_seconds,
    load,
    require,
)
from bench.report import Bars, Goal
from quota import keys

PLAIN, LUA, GATEWAY = "nginx", "nginx + Lua + Redis", "Quotagate"
WARM_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Round:
    """One proxy in one round."""

    cpu_us: float
    """A request, at many connections."""
    many: Load
    single: Load
    refusal_cpu_us: float | None = None


def check(proxies: dict[str, Proxy]) -> None:
    """Ends the benchmark unless all do what they are compared for."""
    for name, proxy in proxies.items():
        expected = {"x-request-id", "ratelimit", "ratelimit-policy"} if name != PLAIN else set()
        status, fields, body = answer(proxy.port, TARGET, ORG)
        if status != 200 or not fields.keys() >= expected or not body:
            raise SystemExit(f"{name}: the answer is not the expected one: {status} {fields}")
        if name == PLAIN:
            continue
        answer(proxy.port, TARGET, SPENT_ORG)  # the first of them takes the only unit
        status, fields, _ = answer(proxy.port, TARGET, SPENT_ORG)
        if status != 429 or not fields.keys() >= expected | {"retry-after"}:
            raise SystemExit(f"{name}: the refusal is not the expected one: {status} {fields}")
        if answer(proxy.port, TARGET)[0] != 401:
            raise SystemExit(f"{name}: a request without a token is let through")


def cpu_us_of(proxy: Proxy, org: str, seconds: float, connections: int, status: int = 200) -> tuple[float, Load]:
    before = cpu_seconds(proxy.worker)
    done = load(proxy.port, org, seconds, connections, status)
    return (cpu_seconds(proxy.worker) - before) / done.requests * 1e6, done


def one_round(name: str, proxy: Proxy, seconds: float, single_seconds: float, connections: int) -> Round:
    cpu_us, many = cpu_us_of(proxy, ORG, seconds, connections)
    single = load(proxy.port, ORG, single_seconds, 1)
    refusal = None if name == PLAIN else cpu_us_of(proxy, SPENT_ORG, single_seconds, connections, 429)[0]
    print(
        f"{name:20} {cpu_us:6.1f} us CPU a request  {many.requests_per_second:7.0f}/s"
        f"  {connections} connections: p50 {many.p50_us:6} p99 {many.p99_us:6} us"
        f"  1: p50 {single.p50_us:5} p99 {single.p99_us:5} us"
        f"{'' if refusal is None else f'  refusal: {refusal:5.1f} us CPU'}",
        flush=True,
    )
    return Round(cpu_us, many, single, refusal)


def measure(
    rounds: int, seconds: float, single_seconds: float, connections: int, python: str
) -> dict[str, list[Round]]:
    with Site(python) as site:
        redis_url, upstream = site.redis(), site.upstream()
        proxies = {PLAIN: site.plain(upstream), LUA: site.lua(upstream), GATEWAY: site.gateway(upstream)}
        check(proxies)
        for proxy in proxies.values():
            load(proxy.port, ORG, WARM_SECONDS, connections)
        rounds_by_name: dict[str, list[Round]] = {name: [] for name in proxies}
        order = list(proxies)
        for i in range(rounds):
            for name in order[i % 3 :] + order[: i % 3]:
                rounds_by_name[name].append(one_round(name, proxies[name], seconds, single_seconds, connections))
        charged = sum(r.many.requests + r.single.requests for name in (LUA, GATEWAY) for r in rounds_by_name[name])
        with redis.Redis.from_url(redis_url) as client:
            events = client.xlen(keys.events_key(keys.shard_of(ORG, keys.SHARDS_DEFAULT)))
        if events < charged:
            raise SystemExit(f"{charged} requests were admitted, but only {events} events were written")
    return rounds_by_name


def ratio(about: str, bound: float, numerators: list[float], denominators: list[float]) -> Goal:
    """Of each round, since what slows one proxy in it slows the other."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return Goal(about, statistics.median(ratios), bound, spread=(min(ratios), max(ratios)))


def goals(rounds_by_name: dict[str, list[Round]], connections: int) -> list[Goal]:
    cpu = {name: [r.cpu_us for r in rounds] for name, rounds in rounds_by_name.items()}
    refusals = [r.refusal_cpu_us or 0 for r in rounds_by_name[GATEWAY]]
    judged = [
        ratio(f"CPU of an admitted request / {LUA}", 0.85, cpu[GATEWAY], cpu[LUA]),
        ratio(f"CPU of an admitted request / {PLAIN}", 2.2, cpu[GATEWAY], cpu[PLAIN]),
        ratio("CPU of a refusal / of an admitted request", 0.4, refusals, cpu[GATEWAY]),
    ]
    for many, percentile in ((True, "p50_us"), (True, "p99_us"), (False, "p50_us"), (False, "p99_us")):
        own, peer = (
            statistics.median(getattr(r.many if many else r.single, percentile) for r in rounds_by_name[name])
            for name in (GATEWAY, LUA)
        )
        at = f"{connections} connections" if many else "1 connection"
        judged.append(Goal(f"{percentile[:3]} at {at}, beside {LUA}", own, peer, "us"))
    return judged


def figures(rounds_by_name: dict[str, list[Round]], connections: int) -> list[Bars]:
    def medians(of: str) -> dict[str, float]:
        part, _, name = of.rpartition(".")
        all_of = {
            key: [getattr(getattr(r, part) if part else r, name) for r in rounds_by_name[key]] for key in rounds_by_name
        }
        return {key: statistics.median(values) for key, values in all_of.items() if None not in values}

    return [
        Bars("CPU of an admitted request, us", medians("cpu_us")),
        Bars("CPU of a refusal, us", medians("refusal_cpu_us")),
        Bars(f"requests a second, {connections} connections", medians("many.requests_per_second")),
        Bars(f"p50, {connections} connections, us", medians("many.p50_us")),
        Bars(f"p99, {connections} connections, us", medians("many.p99_us")),
        Bars("p50, 1 connection, us", medians("single.p50_us")),
        Bars("p99, 1 connection, us", medians("single.p99_us")),
    ]


def main(rounds: int, seconds: float, single_seconds: float, connections: int, python: str) -> None:
    require(TOOLS, LUA_FILES)
    machine = report.machine(python)
    print(report.described(machine), flush=True)
    rounds_by_name = measure(rounds, seconds, single_seconds, connections, python)
    bars, judged = figures(rounds_by_name, connections), goals(rounds_by_name, connections)
    rows = [
        [group.title, *(report.number(group.values[name]) if name in group.values else "" for name in rounds_by_name)]
        for group in bars
    ]
    peers = report.table([f"medians of {rounds}", *rounds_by_name], rows)
    print(f"\n{peers}\n\n{report.goals_table(judged)}")
    options = {"rounds": rounds, "seconds": seconds, "single_seconds": single_seconds, "connections": connections}
    raw = {
        "options": options,
        "rounds": {name: [asdict(r) for r in rounds_of] for name, rounds_of in rounds_by_name.items()},
    }
    title = "One request: Quotagate beside nginx, and beside nginx + Lua + Redis"
    folder = report.write("peers", title, [peers], bars, judged, raw, machine)
    print(f"\nWritten to {folder.relative_to(report.ROOT)}/peers.json, .md and .svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of load at many connections, each round")
    parser.add_argument("--single-seconds", type=float, default=3, help="of load at one connection, and of refusals")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--python", default=sys.executable, help="that runs the gateway; of the same version")
    options = parser.parse_args()
    main(options.rounds, options.seconds, options.single_seconds, options.connections, options.python)
