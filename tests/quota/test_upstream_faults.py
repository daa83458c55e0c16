"""A report of targets that are left out, as text: what was written is read, and anything else is refused."""

import json
from typing import Any

import pytest

from quota.upstream_faults import EJECTED, UNHEALTHY, Fault, Outage, Report, ReportMalformed, decode, encode

REPORT = Report(
    "12-ab",
    "gw1",
    (
        Fault("api", "http://10.0.0.5:8080", EJECTED, 1_795_391_049_925, 1_795_391_050_925, "refused: Ünal"),
        Fault("api", "unix:///run/x", UNHEALTHY, 1_795_391_049_925, None, "a health check was answered 500"),
    ),
    (Outage("api", 1_795_391_049_925, refused=True),),
)


@pytest.mark.parametrize("report", [REPORT, Report("12-ab", "gw1")])
def test_what_a_worker_tells_comes_back_as_it_was(report: Report) -> None:
    assert decode(encode(report).encode()) == report


def changed(**fields: Any) -> bytes:
    told = json.loads(encode(REPORT))
    told["faults"][0] |= fields
    return json.dumps(told).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"source":"a","gateway":"b","faults":7,"outages":[]}',
        b'{"source":1,"gateway":"b","faults":[],"outages":[]}',
        b'{"source":"a","gateway":"b","faults":[],"outages":[{"upstream":"api","since_ms":1,"refused":1}]}',
        changed(state="tired"),
        changed(since_ms="now"),
        changed(until_ms=1.5),
        changed(why=None),
        changed(more=1),
        encode(Report("a", "b", [*REPORT.faults] * 101)).encode(),
    ],
)
def test_anything_else_is_refused(text: bytes) -> None:
    with pytest.raises(ReportMalformed):
        decode(text)
