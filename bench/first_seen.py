"""What the first request with a token takes longer than the next one, when the token is signed with RS256.

    python -m bench.first_seen [--tokens 2000]

A real gateway with one worker, its Redis and an nginx behind it. Each token is sent twice on one connection, so that
both requests meet the same machine; the second one finds the token remembered. Half the tokens come from each of two
issuers, and no request is sent beside another one.
"""

import argparse
import json
import socket
import time
from collections.abc import Sequence
from http.client import HTTPResponse
from pathlib import Path
from statistics import quantiles

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from bench.harness import require
from bench.report import Goal, goals_table, table
from bench.site import Site
from bench.traffic import ORGS
from devstack.ports import LOOPBACK

EXTRA_MS_MAX = 5.0
WARM_UP = 200  # tokens, so that the interpreter has met each step
REQUEST = b"GET /v1/things HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer %b\r\n\r\n"
ISSUERS = ("https://a.example/", "https://b.example/")
Milliseconds = list[float]


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 50th, the 95th and the 99th."""
    cuts = quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[94], cuts[98]


def tokens(keys: Sequence[rsa.RSAPrivateKey], count: int) -> list[bytes]:
    """All different, of the issuers and of many organizations in turn."""
    made = []
    for number in range(count):
        issuer = number % len(ISSUERS)
        claims = {"iss": ISSUERS[issuer], "exp": int(time.time()) + 3600, "org_id": ORGS[number % len(ORGS)]}
        claims |= {"sub": f"user-{number}", "jti": str(number), "roles": ["member"], "scope": "read write"}
        made.append(jwt.encode(claims, keys[issuer], "RS256", headers={"kid": "k"}).encode())
    return made


def asked(connection: socket.socket, token: bytes) -> float:
    """Milliseconds until the answer is there. Ends the benchmark for any answer but 200."""
    began = time.perf_counter()
    connection.sendall(REQUEST % token)
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    passed = 1000 * (time.perf_counter() - began)
    if response.status != 200:
        raise SystemExit(f"a token was answered {response.status}")
    return passed


def measure(port: int, sent: Sequence[bytes]) -> tuple[Milliseconds, Milliseconds]:
    """Of the first requests, and of the next ones."""
    with socket.create_connection((LOOPBACK, port), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pairs = [(asked(connection, token), asked(connection, token)) for token in sent]
    counted = pairs[WARM_UP:]
    return [first for first, _ in counted], [again for _, again in counted]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.first_seen", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=2000)
    options = parser.parse_args()
    require({"nginx": "nginx", "taskset": "util-linux"})
    keys = [rsa.generate_private_key(65537, 2048) for _ in ISSUERS]
    with Site() as site:
        site.redis()
        issuers: list[dict[str, object]] = []
        for name, key in zip(ISSUERS, keys, strict=True):
            file = Path(site.directory) / f"keys-{len(issuers)}.json"
            jwk = {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "k", "key_ops": ["verify"]}
            file.write_text(json.dumps({"keys": [jwk]}))
            issuers.append({"issuer": name, "algorithms": ["RS256"], "jwks": str(file)})
        gateway = site.gateway(site.upstream().port, auth={"issuers": issuers})
        first, again = measure(gateway.port, tokens(keys, WARM_UP + options.tokens))
    extra = [one - other for one, other in zip(first, again, strict=True)]
    rows = {"its first request": first, "the next one": again, "the difference": extra}
    cells = [[name, *(f"{value:.3f}" for value in percentiles(values))] for name, values in rows.items()]
    print(f"{options.tokens} tokens, {gateway.runs}\n\n{table(['ms', 'p50', 'p95', 'p99'], cells)}\n")
    goals = [Goal("p95 of what a first-seen RS256 token adds", percentiles(extra)[1], EXTRA_MS_MAX, "ms")]
    print(goals_table(goals))
    if not all(goal.met for goal in goals):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
