"""Each request is a span, or belongs to a trace that is not recorded. Only there where spans are exported."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control.tracing import SERVER, span


class Traced:
    """Around all that a request goes through, so that each line of the log has its trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self._app(scope, receive, send)
            return
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"]
        status = 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with span(scope["method"], SERVER, parents=given if len(given) == 1 else (), entry=True) as made:
            await self._app(scope, receive, send_noted)
            if made is not None:
                route = getattr(scope.get("route"), "path", None)
                made.attributes |= {"http.request.method": scope["method"], "http.response.status_code": status}
                if route is not None:
                    made.name = f"{scope['method']} {route}"
                    made.attributes["http.route"] = route
                made.attributes["quotagate.correlation"] = scope["correlation_id"]
                if status >= 500:
                    made.error = f"answered with {status}"
                    made.attributes["error.type"] = str(status)
