"""Targets of upstreams that a gateway leaves out, as its workers tell it: the form on the wire.

A worker with such a target sends a report when one changes and once a second, and an empty one when all is well again.
Reports are entries of the stream `qg:upstream-faults`, which expires soon after the last of them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

FIELD: Final = b"f"
"""The stream entry's only field."""
SILENT_SECONDS: Final = 5.0
"""A worker that has sent nothing for so long tells of no fault any more."""
REPORTS_MAX: Final = 5000
"""Entries in Redis."""
FAULTS_MAX: Final = 200
"""Of one report: beyond, they are left out."""
WHY_MAX: Final = 300

EJECTED: Final = "ejected"
"""Requests to the target failed. It gets none, but for one now and then that tries it."""
UNHEALTHY: Final = "unhealthy"
"""Its health checks fail. It gets requests only where there is no better target."""


class ReportMalformed(ValueError):
    """The text is no report of faults."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One target, by what one worker knows."""

    upstream: str
    target: str
    """Its URL."""
    state: str
    since_ms: int
    """Since 1970, by the gateway's clock."""
    until_ms: int | None
    """From then on the next request tries an ejected target."""
    why: str
    """How the last request to it failed, or the last health check."""


@dataclass(frozen=True, slots=True)
class Outage:
    """An upstream all of whose targets are ejected, by what one worker knows."""

    upstream: str
    since_ms: int
    refused: bool
    """Requests are refused with 503; else each target is tried all the same."""


@dataclass(frozen=True, slots=True)
class Report:
    source: str
    """The worker that sends: one process has one name, and no other has it."""
    gateway: str
    """The host that it runs on."""
    faults: Sequence[Fault] = ()
    outages: Sequence[Outage] = ()


def encode(report: Report) -> str:
    return json.dumps(asdict(report), separators=(",", ":"))


def decode(text: bytes) -> Report:
    """Raises ReportMalformed."""
    try:
        told = json.loads(text)
        faults = tuple(Fault(**each) for each in told["faults"])
        outages = tuple(Outage(**each) for each in told["outages"])
        report = Report(told["source"], told["gateway"], faults, outages)
    except (ValueError, TypeError, KeyError) as e:
        raise ReportMalformed(f"not a report of faults: {e}") from e
    _check(report)
    return report


def _check(report: Report) -> None:
    _expect(str, report.source, report.gateway)
    if len(report.faults) > FAULTS_MAX or len(report.outages) > FAULTS_MAX:
        raise ReportMalformed(f"more than {FAULTS_MAX} faults")
    for fault in report.faults:
        _expect(str, fault.upstream, fault.target, fault.why)
        _expect(int, fault.since_ms, fault.until_ms or 0)
        if fault.state not in (EJECTED, UNHEALTHY):
            raise ReportMalformed(f"a target is {fault.state!r}")
    for outage in report.outages:
        _expect(str, outage.upstream)
        _expect(int, outage.since_ms)
        _expect(bool, outage.refused)


def _expect(kind: type, *values: Any) -> None:
    for value in values:
        if type(value) is not kind:
            raise ReportMalformed(f"a report has {value!r} in place of {kind.__name__}")
