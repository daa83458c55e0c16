"""Quotagate beside plain nginx and beside nginx + Lua + Redis: CPU, throughput and latency of one request, in one run.

    python -m bench.peers [--quick] [--rounds 5] [--seconds 4] [--connections 64]

The headline is varied traffic (bench/traffic.py): no head comes twice, 1,000 organizations, four kinds of clients,
every fifth request with a body. Repeated heads, which the gateway recognizes without parsing, are the favourable case
beside it.

Needs nginx, wrk and Debian's Lua module (what is missing is named with its package). nginx + Lua + Redis does what a
vendor would otherwise build: it verifies the token, runs the same `take` on the same Valkey, sets the same fields
(bench/peer/quota.lua). CPU is user and system time of the proxy's worker from /proc. The proxies take turns in every
round, so that noise of the machine affects all of them. Ratios are taken in each round; figures are medians of the
rounds.

Beside the headline: 1,000 connections, answers of 16 KiB and 1 MiB, and a second worker (bench/scaling.py). A run takes
six minutes. --quick measures the headline alone, in three shorter rounds, and leaves no report: 90 seconds.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import report, scaling
from bench.configs import SIZES
from bench.harness import LUA_FILES, TOOLS, answer, check_sent, exchange, load, require
from bench.report import Bars, Goal
from bench.rounds import Case, Rounds, ratio, rows
from bench.scaling import Scaling
from bench.site import Proxy, Site
from bench.traffic import ORG, ORGS, REPEATED, SHAPES, SPENT_ORG, SPENT_ORGS, Traffic, varied
from common import redis_connections
from quota import keys
from quota.ledger import Ledger

PLAIN, LUA, GATEWAY, PURE = "nginx", "nginx + Lua + Redis", "Quotagate", "Quotagate, not compiled"
CONTESTANTS = (PLAIN, LUA, GATEWAY, PURE)
WARM_SECONDS, BESIDE_SECONDS, SCALING_SECONDS = 1, 2, 3
VARIED, SINGLE, REFUSED, REPEATED_HEADS = "varied", "varied, 1 connection", "varied, refused", "repeated heads"
KEYED = "varied, API keys"
REFUSED_HEADS, MANY = "repeated heads, refused", "varied, 1,000 connections"
SIZED = {name: f"varied, answers of {name.replace('-kib', ' KiB').replace('-mib', ' MiB')}" for name in SIZES}
FIELDS = {"x-request-id", "ratelimit", "ratelimit-policy"}
LEFT_OUT = "TLS between clients and the gateway is measured by bench.listener."


def headline(seconds: int, connections: int) -> list[Case]:
    single = max(1, seconds // 2)
    return [
        Case(VARIED, VARIED, CONTESTANTS, seconds, connections),
        Case(KEYED, KEYED, (GATEWAY,), seconds, connections),
        Case(SINGLE, VARIED, (PLAIN, LUA, GATEWAY), single, 1),
        Case(REFUSED, REFUSED, (LUA, GATEWAY), single, connections, 429),
        Case(REPEATED_HEADS, REPEATED_HEADS, (PLAIN, LUA, GATEWAY), single, connections),
    ]


def beside(connections: int) -> list[Case]:
    """What is measured beside the headline."""
    three = (PLAIN, LUA, GATEWAY)
    return [
        Case(REFUSED_HEADS, REFUSED_HEADS, (LUA, GATEWAY), BESIDE_SECONDS, connections, 429),
        Case(MANY, VARIED, three, BESIDE_SECONDS, 1_000),
        *(Case(title, title, three, BESIDE_SECONDS, connections) for title in SIZED.values()),
    ]


@dataclass(frozen=True)
class Measured:
    runs: str
    """Whether the gateways were compiled."""
    rounds: Rounds
    scaling: Sequence[Scaling]


def check(proxies: Mapping[str, Proxy]) -> None:
    """Ends the benchmark unless all do what they are compared for."""
    seen, spent = varied(ORGS, "/seen"), varied(SPENT_ORGS)
    check_forwarded(GATEWAY, proxies[GATEWAY], varied(ORGS, "/seen", keys=True), FIELDS)
    for name, proxy in proxies.items():
        expected = set() if name == PLAIN else FIELDS
        check_forwarded(name, proxy, seen, expected)
        for size_name, size in SIZES.items():
            sized = varied(ORGS, f"/sized/{size_name}")
            if any(len(body) != size for _, _, body in exchange(proxy.port, [sized.request(at) for at in range(5)])):
                raise SystemExit(f"{name}: an answer has not the {size} bytes that it should have")
        if name == PLAIN:
            continue
        exchange(proxy.port, [spent.request(number) for number in range(len(SPENT_ORGS))])  # takes the only units
        answers = exchange(proxy.port, [spent.request(number) for number in range(len(SPENT_ORGS))])
        answers += [answer(proxy.port, REPEATED, SPENT_ORG) for _ in range(2)][1:]
        for status, fields, _ in answers:
            if status != 429 or not fields.keys() >= expected | {"retry-after"}:
                raise SystemExit(f"{name}: the refusal is not the expected one: {status} {fields}")
        if answer(proxy.port, REPEATED)[0] != 401:
            raise SystemExit(f"{name}: a request without a token is let through")


def check_forwarded(name: str, proxy: Proxy, traffic: Traffic, expected: set[str]) -> None:
    """The upstream must have seen each request as it was sent, and the client gets its answer. A body that did not
    arrive as long as it is would be part of the next request on the connection to the upstream."""
    requests = [traffic.request(number) for number in range(SHAPES)]
    for number, (status, fields, body) in enumerate(exchange(proxy.port, requests)):
        seen = fields.pop("x-seen", "")
        if status != 200 or not fields.keys() >= expected or not body:
            raise SystemExit(f"{name}: the answer is not the expected one: {status} {fields}")
        org = "" if name == PLAIN else traffic.orgs[traffic.org_at(number)]
        if seen != " ".join((*facts(requests[number]), org)).rstrip():
            raise SystemExit(f"{name}: what the upstream received is not what was sent: {seen}")


def facts(request: bytes) -> list[str]:
    """Method, target, Content-Length and traceparent."""
    line, *lines = request.decode().partition("\r\n\r\n")[0].split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return [*line.split(" ")[:2], fields.get("content-length", ""), fields["traceparent"]]


async def check_charged(
    redis_url: str, charged: int, orgs: Sequence[str] = (ORG, *ORGS, SPENT_ORG, *SPENT_ORGS)
) -> None:
    """Ends the benchmark unless each admitted request is a unit of its organization and an event. The events are a few
    more: what a client has not waited for, when a run of wrk ended, is given back by another event. `orgs`: all that
    have made requests."""
    async with redis_connections.client(redis_url) as redis:
        ledger = Ledger(redis)
        events = sum([await redis.xlen(keys.events_key(shard)) for shard in range(ledger.shards)])
        used = {}
        for org in orgs:
            balance = await ledger.peek(org)
            used[org] = sum(usage.used for usage in balance.usage) if balance is not None else 0
    if not charged <= sum(used.values()) <= events or not all(used.values()):
        units = f"{sum(used.values())} units of {sum(map(bool, used.values()))} organizations were charged"
        raise SystemExit(f"{charged} requests were admitted, but {units}, and {events} events were written")


def started(site: Site, upstream: int) -> dict[str, Proxy]:
    return {
        PLAIN: site.plain(upstream),
        LUA: site.lua(upstream),
        GATEWAY: site.gateway(upstream),
        PURE: site.gateway(upstream, "not-compiled", env={"QUOTAGATE_COMPILED": "0"}),
    }


def written(directory: Path, traffic: Mapping[str, Traffic]) -> dict[str, Path]:
    """The files for wrk, by the names of what is sent."""
    files = {name: directory / f"{at}.requests" for at, name in enumerate(traffic)}
    for name, file in files.items():
        traffic[name].write(file)
    return files


def measure(site: Site, cases: Sequence[Case], rounds: int, connections: int, scaled: bool) -> Measured:
    redis_url, upstream = site.redis(), site.upstream()
    proxies = started(site, upstream.port)
    runs = f"{GATEWAY} runs {proxies[GATEWAY].runs}, {PURE!r} {proxies[PURE].runs}."
    print(runs, flush=True)
    check(proxies)
    traffic = {VARIED: varied(ORGS), KEYED: varied(ORGS, keys=True), REFUSED: varied(SPENT_ORGS)}
    traffic |= {title: varied(ORGS, f"/sized/{name}") for name, title in SIZED.items()}
    files = written(site.directory, traffic)
    check_sent(upstream.port, traffic[VARIED], files[VARIED], site.directory / "sent")
    for proxy in proxies.values():
        load(proxy.port, files[VARIED], WARM_SECONDS, connections)
        load(proxy.port, ORG, WARM_SECONDS, connections)
    load(proxies[GATEWAY].port, files[KEYED], WARM_SECONDS, connections)
    of = Rounds(proxies, {**files, REPEATED_HEADS: ORG, REFUSED_HEADS: SPENT_ORG})
    of.run(cases, rounds)
    two: list[Scaling] = []
    if scaled:
        pair = site.gateway(upstream.port, "two-workers", 2, scaling.BOTH)
        bystanders = (upstream.worker, site.redis_pid())
        two = scaling.measure(proxies[GATEWAY], pair, bystanders, files[VARIED], rounds, SCALING_SECONDS, connections)
    charged = of.charged(cases, (PLAIN,)) + sum(each.one.requests + each.two.requests for each in two)
    asyncio.run(check_charged(redis_url, charged))
    return Measured(runs, of, two)


def goals(measured: Measured, connections: int) -> list[Goal]:
    of = measured.rounds
    cpu = {name: of.figures(VARIED, name, "cpu_us") for name in of.samples[VARIED]}
    keyed = of.figures(KEYED, GATEWAY, "cpu_us")
    judged = [
        of.beside(f"varied: CPU of an admitted request / {LUA}", 0.60, VARIED, "cpu_us", (GATEWAY, LUA)),
        of.beside(f"varied: CPU of an admitted request / {PLAIN}", 2.4, VARIED, "cpu_us", (GATEWAY, PLAIN)),
        ratio("varied: CPU of a request with an API key / with a token", 1.05, keyed, cpu[GATEWAY]),
        of.beside(f"repeated heads: CPU / {LUA}", 0.55, REPEATED_HEADS, "cpu_us", (GATEWAY, LUA)),
        ratio(
            "varied: CPU of a refusal / of an admitted request",
            0.40,
            of.figures(REFUSED, GATEWAY, "cpu_us"),
            cpu[GATEWAY],
        ),
    ]
    for title, at, bounds in ((VARIED, f"{connections} connections", (0.8, 1.0)), (SINGLE, "1 connection", (1.0, 1.0))):
        for figure, bound in zip(("p50_us", "p99_us"), bounds, strict=True):
            about = f"varied: {figure[:3]} at {at} / {LUA}"
            judged.append(of.beside(about, bound, title, figure, (GATEWAY, LUA)))
    judged.append(of.beside(f"varied, not compiled: CPU / {LUA}", 0.85, VARIED, "cpu_us", (PURE, LUA)))
    return judged + ([scaling.goal(measured.scaling)] if measured.scaling else [])


def charted(of: Rounds) -> list[Bars]:
    """The headline, and repeated heads."""
    cpu = [of.bars(title, "cpu_us", "CPU of a request, us") for title in (VARIED, KEYED, REFUSED, REPEATED_HEADS)]
    latencies = [
        of.bars(title, f"{percentile}_us", f"{percentile}, us")
        for title in (VARIED, SINGLE)
        for percentile in ("p50", "p99")
    ]
    return [*cpu, of.bars(VARIED, "requests_per_second", "requests a second"), *latencies]


def tabled_beside(of: Rounds) -> list[Bars]:
    bars = [of.bars(REFUSED_HEADS, "cpu_us", "CPU of a request, us")]
    for title in (MANY, *SIZED.values()):
        bars.append(of.bars(title, "cpu_us", "CPU of a request, us"))
        bars.append(of.bars(title, "requests_per_second", "requests a second"))
        bars += [of.bars(title, f"{percentile}_us", f"{percentile}, us") for percentile in ("p50", "p99")]
    return bars


def main(quick: bool, rounds: int, seconds: int, connections: int, python: str) -> None:
    require(TOOLS, LUA_FILES)
    machine = report.machine(python)
    print(f"{report.described(machine)}\n{LEFT_OUT}", flush=True)
    cases = headline(seconds, connections) + ([] if quick else beside(connections))
    with Site(python) as site:
        measured = measure(site, cases, rounds, connections, scaled=not quick and scaling.POSSIBLE)
    bars, judged = charted(measured.rounds), goals(measured, connections)
    tables = [report.table([f"medians of {rounds}", *CONTESTANTS], rows(bars, CONTESTANTS))]
    if not quick:
        three = (PLAIN, LUA, GATEWAY)
        tables.append(report.table(["beside the headline", *three], rows(tabled_beside(measured.rounds), three)))
    print("\n" + "\n\n".join((*tables, report.goals_table(judged))))
    if quick:
        return
    raw = {
        "options": {"rounds": rounds, "seconds": seconds, "connections": connections},
        "samples": {
            title: {name: [asdict(sample) for sample in samples] for name, samples in by_name.items()}
            for title, by_name in measured.rounds.samples.items()
        },
        "scaling": [asdict(each) for each in measured.scaling],
    }
    title = "One request: Quotagate beside nginx, and beside nginx + Lua + Redis"
    folder = report.write("peers", title, [*tables, measured.runs, LEFT_OUT], bars, judged, raw, machine)
    print(f"\nWritten to {folder.relative_to(report.ROOT)}/peers.json, .md and .svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the headline in three shorter rounds, and no report")
    parser.add_argument("--rounds", type=int, help="5; quick: 3")
    parser.add_argument(
        "--seconds", type=int, help="of load in each case that the headline is of, each round: 4; quick: 3"
    )
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--python", default=sys.executable, help="that runs the gateway; of the same version")
    options = parser.parse_args()
    rounds, seconds = options.rounds or (3 if options.quick else 5), options.seconds or (3 if options.quick else 4)
    main(options.quick, rounds, seconds, options.connections, options.python)
