"""What only a double can do, under `/_double`: its clock is moved, and calls and deliveries are made to fail."""

import re
import secrets

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from devstack.stripe.api import Api
from devstack.stripe.delivery import Deliveries, Faults
from devstack.stripe.resources import customers, refunds


class Controls:
    """The clock, the faults, the deliveries and the keys of the double."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.sending: Deliveries | None = None
        """Made when the app starts, as it needs the event loop."""
        self.routes = [
            Route("/clock", self.clock, methods=["GET", "POST"]),
            Route("/faults", self.faults, methods=["POST"]),
            Route("/flush", self.flush, methods=["POST"]),
            Route("/deliveries", self.deliveries),
            Route("/calls", self.calls),
            Route("/keys", self.keys, methods=["POST"]),
            Route("/settings", self.settings, methods=["POST"]),
            Route("/customers/{customer}/card", self.card, methods=["POST"]),
            Route("/disputes", self.disputes, methods=["POST"]),
        ]

    @property
    def _sending(self) -> Deliveries:
        assert self.sending is not None  # noqa: S101  no request comes before the start
        return self.sending

    async def clock(self, request: Request) -> Response:
        clock = self._api.account.clock
        if request.method == "POST":
            order = await request.json()
            if "borrowed" in order:
                account = self._api.account
                account.run_due()
                (account.borrow_calendar if order["borrowed"] else account.give_calendar_back)()
                return JSONResponse({"now": clock.now()})
            moment = order["now"] if "now" in order else clock.now() + order["advance_seconds"]
            if moment < clock.now():
                return JSONResponse({"error": "the clock can only be moved ahead"}, 400)
            self._api.account.advance_to(int(moment))
        return JSONResponse({"now": clock.now()})

    async def faults(self, request: Request) -> Response:
        order = await request.json()
        if "webhooks" in order:
            self._sending.faults = Faults(**order["webhooks"])
        if "api" in order:
            faults, api = self._api.faults, order["api"]
            faults.status, faults.times = api.get("status", 0), api.get("times", 1)
            faults.path, faults.hang_seconds = re.compile(api.get("path", "")), api.get("hang_seconds", 0.0)
        return JSONResponse({})

    async def flush(self, request: Request) -> Response:
        await self._sending.flush()
        return JSONResponse({})

    async def deliveries(self, request: Request) -> Response:
        return JSONResponse({"deliveries": self._sending.delivered})

    async def calls(self, request: Request) -> Response:
        return JSONResponse({"calls": self._api.calls})

    async def keys(self, request: Request) -> Response:
        """Makes a restricted key, or gives one that exists other permissions."""
        order = await request.json()
        key = order.get("key") or f"rk_test_{secrets.token_hex(12)}"
        self._api.permissions[key] = frozenset(order["permissions"])
        return JSONResponse({"key": key})

    async def settings(self, request: Request) -> Response:
        self._api.account.settings.update(await request.json())
        return JSONResponse(self._api.account.settings)

    async def card(self, request: Request) -> Response:
        behaviour = (await request.json())["card"]
        customers.set_card(self._api.account, request.path_params["customer"], behaviour)
        return JSONResponse({})

    async def disputes(self, request: Request) -> Response:
        order = await request.json()
        return JSONResponse(refunds.dispute(self._api.account, order["invoice"], order.get("status")))
