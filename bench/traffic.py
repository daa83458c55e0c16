"""The requests that benchmarks send, by wrk (bench/wrk.lua) and played back (bench/hotpath.py): one place for both.

Varied traffic is what a gateway in front of many customers meets. No head comes twice: each request has ids, a query
and a `traceparent` of its own; 1,000 organizations' tokens and the fields of four kinds of clients take turns, so that
each organization is seen with each kind; every fifth request is a POST with a JSON body of 150 to 250 bytes.

In repeated traffic, the favourable case, all requests carry one head, byte for byte.

Each organization has an API key, too, which either traffic may carry in place of the token.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path

import jwt

from identity.api_key import RANDOM_CHARACTERS, checksum

SECRET = "a secret for benchmarks, forty characters"
ISSUER = "bench"
ORG, SPENT_ORG = "bench", "spent"
"""One with more units than any run needs, and one with a single unit."""
ORGS, SPENT_ORGS = [f"org-{at:04d}" for at in range(1_000)], [f"spent-{at:04d}" for at in range(100)]
"""The same, of varied traffic."""
WORDS = 16_384  # two of them, in order, make more names than a run needs, and wrk reads them quickly
SHAPES = 240  # kinds of clients, methods, paths and lengths of a body, in all their combinations

# Fields as the clients send them, in their order. {body}: what a body adds, at its place.
CURL = """Host: api.example.com
User-Agent: curl/8.5.0
Accept: */*
Authorization: Bearer %(token)b
traceparent: 00-%(trace)b-%(span)b-01
{body}"""
PYTHON_REQUESTS = """Host: api.example.com
User-Agent: python-requests/2.32.5
Accept-Encoding: gzip, deflate
Accept: application/json
Connection: keep-alive
traceparent: 00-%(trace)b-%(span)b-01
tracestate: example=00f067aa0ba902b7
{body}Authorization: Bearer %(token)b
"""
FIREFOX = """Host: api.example.com
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0
Accept: application/json
Accept-Language: en-US,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Referer: https://app.example.com/
{body}Authorization: Bearer %(token)b
traceparent: 00-%(trace)b-%(span)b-01
Origin: https://app.example.com
Connection: keep-alive
Sec-Fetch-Dest: empty
Sec-Fetch-Mode: cors
Sec-Fetch-Site: same-site
Priority: u=4
"""
GO_SDK = """Host: api.example.com
User-Agent: example-go/3.2.1 (linux/amd64; go1.23.4)
{body}Accept: application/json
Authorization: Bearer %(token)b
Traceparent: 00-%(trace)b-%(span)b-01
X-Example-Api-Version: 2026-10-01
X-Example-Arch: amd64
X-Example-Retry-Count: 0
X-Example-Runtime: go1.23.4
Accept-Encoding: gzip
"""
CLIENTS = (CURL, PYTHON_REQUESTS, FIREFOX, GO_SDK)

READS = (
    "/v1/things/%(id)b?limit=20&cursor=%(cursor)b",
    "/v1/projects/%(id)b/things?limit=100&cursor=%(cursor)b&sort=-created_at",
    "/v1/things/%(id)b/revisions/%(cursor)b?fields=name,state",
)
WRITE = "/v1/projects/%(id)b/things?batch=%(cursor)b"

REPEATED = "/v1/things?limit=10"
"""The target of repeated traffic."""


def token(org: str) -> str:
    now = int(time.time())
    claims = {"org_id": org, "iss": ISSUER, "sub": "user_1", "iat": now, "exp": now + 86_400}
    return jwt.encode(claims, SECRET, "HS256")


def api_key(org: str) -> str:
    """The same in each process that is asked."""
    body = f"qg_live_{sha256(org.encode()).hexdigest()[:RANDOM_CHARACTERS]}"
    return f"{body}_{checksum(body.encode())}"


def key_id(org: str) -> str:
    return sha256(org.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Traffic:
    """Requests by number, each different from all others. bench/wrk.lua does the same from the file."""

    orgs: Sequence[str]
    tokens: Sequence[bytes]
    shapes: Sequence[bytes]
    """What is sent but for the slots."""
    words: Sequence[bytes]

    def request(self, number: int) -> bytes:
        low, high = number % WORDS, number // WORDS % WORDS
        slots = {
            b"id": self.words[low],
            b"cursor": self.words[high],
            b"trace": self.words[high] + self.words[low],
            b"span": self.words[low],
            b"token": self.tokens[self.org_at(number)],
        }
        return self.shapes[number % SHAPES] % slots

    def org_at(self, number: int) -> int:
        """The place among `orgs`. Each round begins one further, or an organization would always have one shape."""
        return (number + number // len(self.orgs)) % len(self.orgs)

    def requests(self) -> Iterator[bytes]:
        return (self.request(number) for number in count())

    def write(self, file: Path) -> None:
        """The parts, for bench/wrk.lua."""
        parts = (self.words, self.tokens, self.shapes)
        file.write_bytes(b"\x1e".join(b"\x1f".join(part) for part in parts))


def varied(orgs: Sequence[str], prefix: str = "", *, keys: bool = False) -> Traffic:
    """`prefix`: of all paths; `keys`: with API keys in place of tokens."""
    tokens = [(api_key(org) if keys else token(org)).encode() for org in orgs]
    return Traffic(orgs, tokens, [_shape(at, prefix) for at in range(SHAPES)], list(_words()))


def _words() -> Iterator[bytes]:
    """Sixteen hexadecimal digits each, all different."""
    return (b"%016x" % ((at + 1) * 0x9E3779B97F4A7C15 % 2**64) for at in range(WORDS))


def _shape(at: int, prefix: str) -> bytes:
    fields = CLIENTS[at % len(CLIENTS)]
    if at % 5 < 4:
        return _rendered(f"GET {prefix}{READS[at % len(READS)]} HTTP/1.1", fields.format(body=""))
    body = json.dumps(
        {
            "name": f"thing {at:04d}",
            "labels": {"environment": "production", "team": "search"},
            "quantity": at,
            "note": "n" * (40 + at * 7 % 100),
        }
    )
    sized = f"Content-Type: application/json\nContent-Length: {len(body)}\n"
    return _rendered(f"POST {prefix}{WRITE} HTTP/1.1", fields.format(body=sized), body)


def _rendered(line: str, fields: str, body: str = "") -> bytes:
    return f"{line}\n{fields}\n".replace("\n", "\r\n").encode() + body.encode()
