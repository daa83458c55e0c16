"""The double's HTTP face: Stripe's API under `/v1`, its pages, and under `/_double` what only a double can do."""

import asyncio
import hashlib
import json
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from devstack.stripe import pages, resources
from devstack.stripe.account import Account, Object, RequestRefused
from devstack.stripe.delivery import Deliveries, Faults, add_endpoint
from devstack.stripe.dispatch import expanded, matching
from devstack.stripe.honoured import Watched, refuse_the_rest
from devstack.stripe.parameters import IDEMPOTENCY_KEY_MAX, checked, nested

log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
SAVE_EVERY_SECONDS, SAVE_SHARE = 1.0, 0.05
_KEY = re.compile(r"(?:sk|rk)_test_\w+")


class ApiFaults:
    """What happens to the next calls."""

    def __init__(self) -> None:
        self.status = 0
        self.times = 0
        self.path = re.compile("")
        self.hang_seconds = 0.0

    def strikes(self, path: str) -> bool:
        if self.times > 0 and self.path.search(path):
            self.times -= 1
            return True
        return False


class Api:
    """`/v1`: one call after the other, as the account's state is one."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.faults = ApiFaults()
        self.calls: list[Object] = []
        self.permissions: dict[str, frozenset[str]] = {}
        """Of restricted keys."""
        self.ignored: set[str] = set()
        """Parameters of calls that were granted, at which nothing looked: tests have this be empty."""
        self._answers: dict[str, tuple[str, int, Object]] = {}

    async def call(self, request: Request) -> Response:
        path, request_id = request.url.path, f"req_{secrets.token_hex(7)}"
        body = await request.body()
        if self.faults.strikes(path):
            await asyncio.sleep(self.faults.hang_seconds)
            if self.faults.status:
                return _refusal(_fault(self.faults.status), request_id)
        headers = {"Request-Id": request_id, "Stripe-Version": request.headers.get("stripe-version", "")}
        key = request.headers.get("idempotency-key")
        if key is None or request.method == "GET":
            status, answer = self._answer(request, body)
            self._note(request, status, answer)
            return JSONResponse(answer, status, headers)
        if len(key) > IDEMPOTENCY_KEY_MAX:
            message = f"Idempotency keys have at most {IDEMPOTENCY_KEY_MAX} characters."
            return _refusal(RequestRefused(message, kind="idempotency_error"), request_id)
        digest = hashlib.sha256(f"{request.method} {path} ".encode() + body).hexdigest()
        if key in self._answers:
            used_for, status, answer = self._answers[key]
            if used_for != digest:
                message = "Keys for idempotent requests can only be used with the parameters they were first used with."
                return _refusal(RequestRefused(message, kind="idempotency_error"), request_id)
            return JSONResponse(answer, status, {**headers, "Idempotent-Replayed": "true"})
        status, answer = self._answer(request, body)
        if status < 500:
            self._answers[key] = (digest, status, answer)
        self._note(request, status, answer)
        return JSONResponse(answer, status, headers)

    def _answer(self, request: Request, body: bytes) -> tuple[int, Object]:
        try:
            self.account.run_due()
            found, names = matching(request.method, request.url.path)
            self._authorize(request, found.permission)
            text = request.url.query if request.method in ("GET", "DELETE") and not body else body.decode()
            given = nested(parse_qsl(text, keep_blank_values=True))
            params = checked(given, found.params) if found.params else given
            expand: Sequence[str] = params.pop("expand", [])
            refuse_the_rest(found.params, params)
            watched = Watched(params)
            answer = found.handler(self.account, watched, **names)
            self.ignored |= {f"{request.method} {request.url.path}: {name}" for name in watched.unseen}
            return 200, expanded(self.account, answer, expand)
        except RequestRefused as e:
            return e.status, _error(e)

    def _authorize(self, request: Request, permission: str) -> None:
        _, _, key = request.headers.get("authorization", "").partition(" ")
        if not _KEY.fullmatch(key):
            raise RequestRefused("Invalid API Key provided.", status=401)
        granted = self.permissions.get(key, frozenset())
        # Who may write may read.
        if key.startswith("rk_") and not granted & {permission, permission.replace(":read", ":write")}:
            message = f"The provided key '{key[:12]}***' does not have the required permission for this: {permission}."
            raise RequestRefused(message, status=403)

    def _note(self, request: Request, status: int, answer: Object) -> None:
        try:
            permission = matching(request.method, request.url.path)[0].permission
        except RequestRefused:
            permission = None
        self.calls.append(
            {
                "method": request.method,
                "path": request.url.path,
                "permission": permission,
                "status": status,
                "id": answer.get("id"),
            }
        )
        del self.calls[:-10_000]


class Control:
    """`/_double`: its clock, its faults, its keys."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.sending: Deliveries | None = None
        """Comes with the event loop."""
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
        assert self.sending is not None  # noqa: S101  requests come after the start
        return self.sending

    async def clock(self, request: Request) -> Response:
        clock = self._api.account.clock
        if request.method == "POST":
            wanted = await request.json()
            if "borrowed" in wanted:
                account = self._api.account
                account.run_due()
                (account.borrow_calendar if wanted["borrowed"] else account.give_calendar_back)()
                return JSONResponse({"now": clock.now()})
            moment = wanted["now"] if "now" in wanted else clock.now() + wanted["advance_seconds"]
            if moment < clock.now():
                return JSONResponse({"error": "the clock goes ahead only"}, 400)
            self._api.account.advance_to(int(moment))
        return JSONResponse({"now": clock.now()})

    async def faults(self, request: Request) -> Response:
        wanted = await request.json()
        if "webhooks" in wanted:
            self._sending.faults = Faults(**wanted["webhooks"])
        if "api" in wanted:
            faults, api = self._api.faults, wanted["api"]
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
        """A new restricted key, or one that exists already with other permissions."""
        wanted = await request.json()
        key = wanted.get("key") or f"rk_test_{secrets.token_hex(12)}"
        self._api.permissions[key] = frozenset(wanted["permissions"])
        return JSONResponse({"key": key})

    async def settings(self, request: Request) -> Response:
        self._api.account.settings.update(await request.json())
        return JSONResponse(self._api.account.settings)

    async def card(self, request: Request) -> Response:
        behaviour = (await request.json())["card"]
        resources.customers.set_card(self._api.account, request.path_params["customer"], behaviour)
        return JSONResponse({})

    async def disputes(self, request: Request) -> Response:
        wanted = await request.json()
        return JSONResponse(resources.refunds.dispute(self._api.account, wanted["invoice"], wanted.get("status")))


def build(account: Account, file: Path | None = None, endpoint: tuple[str, str] | None = None) -> Starlette:
    """`file`: where the account is kept from one run to the next. `endpoint`: URL and secret of a webhook endpoint that
    is there from the beginning."""
    api = Api(account)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        deliveries = Deliveries(account)
        app.state.deliveries = deliveries
        control.sending = deliveries
        if file is not None:
            account.load(file)
        if endpoint is not None:
            _have_endpoint(account, *endpoint)
        deliveries.resume()
        ticking = asyncio.create_task(_tick(account, file))
        try:
            yield
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            await deliveries.close()
            if file is not None:
                account.save(file)

    control = Control(api)
    app = Starlette(
        routes=[
            Route("/v1/{rest:path}", api.call, methods=["GET", "POST", "DELETE"]),
            Mount("/_double", routes=control.routes),
            *pages.routes(account),
        ],
        lifespan=lifespan,
    )
    app.state.account = account
    app.state.api = api
    return app


async def _tick(account: Account, file: Path | None) -> None:
    save_at = 0.0
    while True:
        await asyncio.sleep(TICK_SECONDS)
        try:
            account.run_due()
        except Exception:
            log.exception("what was due could not be done")  # the others are, with the next tick
        started = time.monotonic()
        if file is not None and account.changed and started >= save_at:
            account.save(file)
            ended = time.monotonic()
            # A long history takes long to save, and is saved less often.
            save_at = ended + max(SAVE_EVERY_SECONDS, (ended - started) / SAVE_SHARE)


def _have_endpoint(account: Account, url: str, secret: str) -> None:
    for each in list(account.find("webhook_endpoint")):
        if account.note(each["id"]).get("own"):
            # The same one, so that what it was not sent yet is not lost.
            each["url"], account.note(each["id"])["secret"] = url, secret
            return
    made = add_endpoint(account, url, ["*"], secret)
    account.note(made["id"])["own"] = True


def _error(e: RequestRefused) -> Object:
    told: dict[str, Any] = {"message": str(e), "type": e.kind}
    if e.code:
        told["code"] = e.code
    if e.param:
        told["param"] = e.param
    return {"error": told}


def _refusal(e: RequestRefused, request_id: str) -> Response:
    return Response(json.dumps(_error(e)), e.status, {"Request-Id": request_id}, "application/json")


def _fault(status: int) -> RequestRefused:
    if status == 429:
        return RequestRefused(
            "Too many requests in a short time.", status=429, kind="invalid_request_error", code="rate_limit"
        )
    if status < 500:
        return RequestRefused("The request is refused.", status=status)
    return RequestRefused("An error on Stripe's side.", status=status, kind="api_error")
