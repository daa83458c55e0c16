"""W3C Trace Context: a client's trace goes on unchanged, one is begun where the operator wants it and there is none."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.trace import BegunTraces, trace_id, trace_id_of, without_trace
from tests.gateway.rig import Gateway, Organization, StartGateway, Until, Upstream

HOST = b"Host: api.example.com\r\n"
ID = b"4bf92f3577b34da6a3ce929d0e0e4736"
VALID = b"00-%b-00f067aa0ba902b7-01" % ID
MADE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])")


def get(lines: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n%b%b\r\n" % (HOST, lines)


def sent(message: bytes, name: bytes) -> list[str]:
    return [value.decode() for value in re.findall(rb"(?im)^%b: ([^\r]*)\r$" % name, message)]


@pytest.mark.parametrize("create", [False, True])
async def test_a_valid_trace_goes_on_unchanged(
    start: StartGateway, acme: Organization, upstream: Upstream, create: bool
) -> None:
    gateway = await start(trace={"create": create})
    client = await gateway.connect()
    for _ in range(2):
        await client.ask(get(acme.auth + b"TraceParent: %b\r\nTraceState: a=1,b=2\r\n" % VALID))
        assert sent(upstream.requests[-1], b"traceparent") == [VALID.decode()]
        assert sent(upstream.requests[-1], b"tracestate") == ["a=1,b=2"]


async def test_a_trace_is_begun_for_each_request_that_has_none_and_the_log_names_it(
    start: StartGateway, acme: Organization, upstream: Upstream, tmp_path: Path, until: Until
) -> None:
    file = tmp_path / "access.log"
    gateway = await start(trace={"create": True}, access_log={"path": str(file)})
    client = await gateway.connect()
    lines = [b"", b"", b"X-Request-Id: a\r\n", b"traceparent: 00-nonsense\r\ntracestate: a=1\r\n"]
    lines += [b"traceparent: %b\r\ntraceparent: %b\r\n" % (VALID, VALID), b"traceparent: %b\r\n" % VALID.upper()]
    for line in lines:
        assert (await client.ask(get(acme.auth + line))).status == 200
    assert (await client.ask(get(b"Authorization: Bearer x\r\n"))).status == 401
    made = []
    for request in upstream.requests:
        [traceparent] = sent(request, b"traceparent")
        match = MADE.fullmatch(traceparent)
        assert match
        assert trace_id([b"traceparent: %b\r\n" % traceparent.encode()]), "valid"
        assert match[3] == "01"
        assert not sent(request, b"tracestate"), "it belonged to the other"
        made.append(match[1])
    assert len(set(made)) == len(lines)
    await until(lambda: file.exists() and file.read_bytes().count(b"\n") == len(lines) + 1)
    entries = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert [line.get("trace_id") for line in entries] == [*made, None], "of what was forwarded"
    assert all(line["trace_id"].endswith(line["request_id"]) for line in entries[:-1])


async def test_nothing_is_made_unless_it_is_set(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    client = await gateway.connect()
    for _ in range(2):
        await client.ask(get(acme.auth))
        assert not sent(upstream.requests[-1], b"traceparent")


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (VALID, True),
        (VALID + b" ", True),
        (b"cc" + VALID[2:] + b"-what-the-future-will-be-like", True),
        (VALID + b"-more", False),
        (b"ff" + VALID[2:], False),
        (VALID.upper(), False),
        (VALID.replace(ID, b"0" * 32), False),
        (VALID.replace(b"00f067aa0ba902b7", b"0" * 16), False),
        (VALID[:-1], False),
        (b"", False),
        (VALID + b"," + VALID, False),
    ],
)
def test_a_traceparent_is_valid_as_the_recommendation_has_it(value: bytes, valid: bool) -> None:
    assert (trace_id([b"Accept: */*\r\n", b"Traceparent: %b\r\n" % value]) is not None) is valid


@given(
    at=st.integers(0, len(VALID)),
    removed=st.integers(0, 3),
    put=st.sampled_from([b"", b"0", b"-", b"A", b"g", b"--", b"000"]),
)
def test_a_traceparent_of_the_usual_length_is_read_as_any_other(at: int, removed: int, put: bytes) -> None:
    changed = VALID[:at] + put + VALID[at + removed :]
    assert trace_id_of(changed) == trace_id_of(changed + b" "), "a blank behind it means nothing"


def test_of_an_unreadable_trace_nothing_is_passed_on_with_another() -> None:
    lines = [b"TraceParent: x\r\n", b"X: y\r\n", b"tracestate: a=1\r\n", b"traceparent-x: 1\r\n"]
    assert without_trace(lines) == [b"X: y\r\n", b"traceparent-x: 1\r\n"]
    assert trace_id([b"traceparent-x: %b\r\n" % VALID]) is None


def test_the_flag_is_the_operators() -> None:
    assert BegunTraces(sampled=False).line_end.endswith(b"-00\r\n")
    assert BegunTraces(sampled=True).line_end.endswith(b"-01\r\n")
