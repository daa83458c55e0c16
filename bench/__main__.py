"""`python -m bench`: what there is to measure, and all of it in one go.

python -m bench [NAME]
"""

import subprocess
import sys

BENCHES = {
    "hotpath": "the gateway's own work for one request, without sockets (--varied: as clients send it)",
    "recording": "what it adds to that to record one request in a hundred (--lines: to send the access log)",
    "take": "what one take costs Redis, single and batched",
    "peers": "a request beside plain nginx and nginx + Lua + Redis, in one run (needs nginx, wrk, the Lua module)",
    "listener": "what TLS costs, beside nginx with TLS, and HTTP/2 by an nginx in front (needs nginx, wrk, h2load)",
    "volume": "memory and throughput of large bodies, and of many idle connections (needs nginx)",
    "durability": "what each durability level costs",
    "ledger": "lost, duplicated, over-admitted, drift; backlog, lag, a million organizations (--quick: within 40 s)",
    "loadtest": "many kinds of users at once, by locust: failures, latencies, over-admission (make load)",
    "open_loop": "latencies at fixed rates, without coordinated omission (needs nginx)",
    "slo": "whether what was promised is kept (make slo)",
    "webhooks": "from a change at Stripe to its enforcement, at 50 a second",
    "idle": "CPU, Redis commands and transactions of a stack while nobody calls it",
    "start": "from the start of a gateway, or the death of a worker, to the next answer",
    "revocation": "what is admitted after the answer to a call that revokes, 1,000 times under load (needs nginx)",
    "first_seen": "what the first request with an RS256 token takes longer than the next ones (needs nginx)",
    "tiles": "how late live tiles are, with 200 viewers",
    "console": "time and size of each page, with 100,000 organizations and 10,000,000 events",
    "gateways": "four gateways behind one balancer beside one: CPU of a request (needs nginx, wrk)",
    "cluster": "a gateway on a Redis Cluster beside one on a single server: CPU of a request (needs nginx, wrk)",
    "events": "bytes of usage events in tables, indexes and archives, and how long what reads them takes",
    "restarts": "what clients notice of rolling restarts, by reload and by replacing gateways",
    "upgrade": "what clients notice of a new release, and of going back (needs git, make, an index of packages)",
    "backup": "size, time and memory of backup and restore",
    "regions": "several regions, one quota, in 1,000 runs in which anything fails: over, and what is sold at the end",
    "exactness": "over-admission: 4 processes, 3 L requests at once, 20 runs",
}


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in BENCHES]:
        print(f"no such benchmark: {', '.join(unknown)}\n", file=sys.stderr)
        for name, about in BENCHES.items():
            print(f"  {name:10} {about}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or BENCHES:
        print(f"== {name}: {BENCHES[name]}", flush=True)
        failed |= subprocess.call([sys.executable, "-m", f"bench.{name}"])
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
