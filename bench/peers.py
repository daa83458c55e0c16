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

--quick measures the headline alone, in three shorter rounds, and leaves no report.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from redis.asyncio import Redis

from bench import report
from bench.harness import LUA_FILES, TOOLS, answer, check_sent, exchange, load, require
from bench.report import Bars, Goal
from bench.rounds import Case, Rounds, ratio, rows
from bench.site import Proxy, Site
from bench.traffic import ORG, ORGS, REPEATED, SHAPES, SPENT_ORG, SPENT_ORGS, Traffic, varied
from quota import keys
from quota.ledger import Ledger

PLAIN, LUA, GATEWAY, PURE = "nginx", "nginx + Lua + Redis", "Quotagate", "Quotagate, not compiled"
WARM_SECONDS = 1
VARIED, SINGLE, REFUSED, REPEATED_HEADS = "varied", "varied, 1 connection", "varied, refused", "repeated heads"
FIELDS = {"x-request-id", "ratelimit", "ratelimit-policy"}


def headline(seconds: int, connections: int) -> list[Case]:
    single = max(1, seconds // 2)
    return [
        Case(VARIED, "varied", (PLAIN, LUA, GATEWAY, PURE), seconds, connections),
        Case(SINGLE, "varied", (PLAIN, LUA, GATEWAY), single, 1),
        Case(REFUSED, "varied, used up", (LUA, GATEWAY), single, connections, 429),
        Case(REPEATED_HEADS, "repeated", (PLAIN, LUA, GATEWAY), single, connections),
    ]


def check(proxies: Mapping[str, Proxy]) -> None:
    """Ends the benchmark unless all do what they are compared for."""
    seen, spent = varied(ORGS, "/seen"), varied(SPENT_ORGS)
    for name, proxy in proxies.items():
        expected = set() if name == PLAIN else FIELDS
        check_forwarded(name, proxy, seen, expected)
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


async def check_charged(redis_url: str, charged: int) -> None:
    """Ends the benchmark unless each admitted request is a unit of its organization and an event. The events are a few
    more: what a client has not waited for, when a run of wrk ended, is given back by another event."""
    async with Redis.from_url(redis_url) as redis:
        ledger = Ledger(redis)
        events = sum([await redis.xlen(keys.events_key(shard)) for shard in range(ledger.shards)])
        used = {}
        for org in (ORG, *ORGS, SPENT_ORG, *SPENT_ORGS):
            balance = await ledger.peek(org)
            used[org] = sum(usage.used for usage in balance.usage) if balance is not None else 0
    if not charged <= sum(used.values()) <= events or not all(used.values()):
        units = f"{sum(used.values())} units of {sum(map(bool, used.values()))} organizations were charged"
        raise SystemExit(f"{charged} requests were admitted, but {units}, and {events} events were written")


def measure(site: Site, cases: Sequence[Case], rounds: int) -> Rounds:
    redis_url, upstream = site.redis(), site.upstream()
    proxies = {
        PLAIN: site.plain(upstream.port),
        LUA: site.lua(upstream.port),
        GATEWAY: site.gateway(upstream.port),
        PURE: site.gateway(upstream.port, "not-compiled", env={"QUOTAGATE_COMPILED": "0"}),
    }
    check(proxies)
    all_of = varied(ORGS)
    requests: dict[str, str | Path] = {"repeated": ORG, "repeated, used up": SPENT_ORG}
    for name, traffic in (("varied", all_of), ("varied, used up", varied(SPENT_ORGS))):
        file = site.directory / f"{name}.requests"
        traffic.write(file)
        requests[name] = file
    check_sent(upstream.port, all_of, site.directory / "varied.requests", site.directory / "sent")
    for proxy in proxies.values():
        load(proxy.port, requests["varied"], WARM_SECONDS, 64)
        load(proxy.port, ORG, WARM_SECONDS, 64)
    measured = Rounds(proxies, requests)
    measured.run(cases, rounds)
    asyncio.run(check_charged(redis_url, measured.charged(cases, (PLAIN,))))
    return measured


def goals(of: Rounds, connections: int) -> list[Goal]:
    cpu = {name: of.figures(VARIED, name, "cpu_us") for name in of.samples[VARIED]}
    judged = [
        of.beside(f"varied: CPU of an admitted request / {LUA}", 0.60, VARIED, "cpu_us", (GATEWAY, LUA)),
        of.beside(f"varied: CPU of an admitted request / {PLAIN}", 2.4, VARIED, "cpu_us", (GATEWAY, PLAIN)),
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
    return judged


def figures(of: Rounds) -> list[Bars]:
    bars = [of.bars(title, "cpu_us", "CPU of a request, us") for title in of.samples if title != SINGLE]
    for title in (VARIED, SINGLE):
        bars += [of.bars(title, f"{percentile}_us", f"{percentile}, us") for percentile in ("p50", "p99")]
    bars.append(of.bars(VARIED, "requests_per_second", "requests a second"))
    return bars


def main(quick: bool, rounds: int, seconds: int, connections: int, python: str) -> None:
    require(TOOLS, LUA_FILES)
    machine = report.machine(python)
    print(report.described(machine), flush=True)
    cases = headline(seconds, connections)
    with Site(python) as site:
        of = measure(site, cases, rounds)
    bars, judged = figures(of), goals(of, connections)
    names = (PLAIN, LUA, GATEWAY, PURE)
    peers = report.table([f"medians of {rounds}", *names], rows(bars, names))
    print(f"\n{peers}\n\n{report.goals_table(judged)}")
    if quick:
        return
    raw = {
        "options": {"rounds": rounds, "seconds": seconds, "connections": connections},
        "samples": {
            title: {name: [asdict(sample) for sample in samples] for name, samples in by_name.items()}
            for title, by_name in of.samples.items()
        },
    }
    title = "One request: Quotagate beside nginx, and beside nginx + Lua + Redis"
    folder = report.write("peers", title, [peers], bars, judged, raw, machine)
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
