"""A read that the replica failed in the middle of is done again, by the primary; and each answer says how old it is."""

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from control.access.signin.same_origin import SAFE_METHODS
from control.moments import moment
from control.replica import ReplicaFailed, noticed

AS_OF: Final = "Quotagate-As-Of"
"""The field of an answer that a replica has read: of which moment it is."""

Handler = Callable[[Request], Awaitable[Response]]


def rereading(handler: Handler) -> Handler:
    async def handle(request: Request) -> Response:
        if request.method not in SAFE_METHODS:
            return await handler(request)
        with noticed() as read:
            try:
                answer = await handler(request)
            except ReplicaFailed:
                read.as_of, read.primary_only = None, True
                answer = await handler(request)
        if read.as_of is not None:
            answer.headers[AS_OF] = moment(read.as_of).isoformat(timespec="milliseconds")
        return answer

    return handle


class ReadingRoute(APIRoute):
    """Of an endpoint that reads what may be a little old."""

    def get_route_handler(self) -> Handler:  # type: ignore[override]  # a coroutine is one
        return rereading(super().get_route_handler())
