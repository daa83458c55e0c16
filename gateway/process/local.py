"""The gateway's own endpoints under `/-/`, away from the proxied path.

`/-/health` says that the process runs; `/-/ready` says that it can decide, and why not if it cannot.
"""

import json
from collections.abc import Mapping
from typing import Final, Protocol

from gateway.decision.refusals import RefusalAnswer
from quota import problems

_HEALTH: Final = b"/-/health"
_READY: Final = b"/-/ready"


class _Link(Protocol):
    async def look(self) -> None: ...


class _Settlements(Protocol):
    @property
    def open(self) -> int: ...


class _Journal(Protocol):
    @property
    def state(self) -> dict[str, str | int]: ...


class _Upstream(Protocol):
    @property
    def state(self) -> str: ...


class ReportingWorker(Protocol):
    """What is said of a worker here."""

    @property
    def link(self) -> _Link: ...
    @property
    def settlements(self) -> _Settlements: ...
    @property
    def degraded(self) -> _Journal | None: ...
    @property
    def upstreams(self) -> Mapping[str, _Upstream]: ...
    def faults(self) -> list[str]: ...


def refusal(method: bytes, target: bytes) -> RefusalAnswer | None:
    """Why a request for `/-/` has no other answer; None where it has."""
    if _path(target) not in (_HEALTH, _READY):
        return RefusalAnswer(problems.NOT_FOUND, "The gateway has no such endpoint.")
    if method not in (b"GET", b"HEAD"):
        return RefusalAnswer(problems.METHOD_NOT_ALLOWED, "The endpoint can only be read.", b"Allow: GET, HEAD\r\n")
    return None


async def answer(worker: ReportingWorker, target: bytes) -> tuple[int, bytes]:
    """Status, and JSON, of a target that is not refused."""
    if _path(target) == _HEALTH:
        return 200, _json({"status": "ok"})
    await worker.link.look()
    faults = worker.faults()
    state = {
        "status": "unready" if faults else "ready",
        "faults": faults,
        "open_settlements": worker.settlements.open,
        **({} if (degraded := worker.degraded) is None else {"journal": degraded.state}),
        "upstreams": {name: upstream.state for name, upstream in worker.upstreams.items()},
    }
    return 503 if faults else 200, _json(state)


def _path(target: bytes) -> bytes:
    return target.partition(b"?")[0]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
