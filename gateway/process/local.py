"""The gateway's own endpoints under `/-/`: a Starlette app, away from the proxied path.

`/-/health` says that the process runs; `/-/ready` says that it can decide, and why not if it cannot.
"""

from collections.abc import Mapping
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quota import problems


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


def local_app(worker: ReportingWorker) -> Starlette:
    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> JSONResponse:
        await worker.link.look()
        faults = worker.faults()
        return JSONResponse(
            {
                "status": "unready" if faults else "ready",
                "faults": faults,
                "open_settlements": worker.settlements.open,
                **({} if (degraded := worker.degraded) is None else {"journal": degraded.state}),
                "upstreams": {name: upstream.state for name, upstream in worker.upstreams.items()},
            },
            status_code=503 if faults else 200,
        )

    async def missing(request: Request, __: Exception) -> Response:
        correlation = request.headers.get("x-request-id")
        body = problems.body(problems.NOT_FOUND, "The gateway has no such endpoint.", correlation)
        return Response(body, 404, media_type=problems.MEDIA_TYPE)

    return Starlette(
        routes=[Route("/-/health", health), Route("/-/ready", ready)],
        exception_handlers={404: missing},
    )
