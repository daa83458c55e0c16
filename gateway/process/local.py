"""The gateway's own endpoints under `/-/`: a Starlette app, away from the proxied path.

`/-/health` says that the process runs; `/-/ready` says that it can decide, and why not if it cannot.
"""

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quota import problems

if TYPE_CHECKING:
    from gateway.process.worker import Worker


def local_app(worker: "Worker") -> Starlette:
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
