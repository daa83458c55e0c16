"""Stripe's API under `/v1`: a call is authorized, checked, done once for each idempotency key, and answered."""

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from devstack.stripe.account import Account, Object, RequestRefused
from devstack.stripe.dispatch import expanded, matching
from devstack.stripe.honoured import Watched, refuse_unsupported
from devstack.stripe.parameters import IDEMPOTENCY_KEY_MAX, checked, nested

_KEY = re.compile(r"(?:sk|rk)_test_\w+")


class ApiFaults:
    """What goes wrong with the next calls."""

    def __init__(self) -> None:
        self.status = 0
        self.times = 0
        self.path = re.compile("")
        self.hang_seconds = 0.0

    def strikes(self, path: str) -> bool:
        """Whether this call fails; counts it then."""
        if self.times > 0 and self.path.search(path):
            self.times -= 1
            return True
        return False


class Api:
    """`/v1`: calls are done one after the other, since they change one account."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.faults = ApiFaults()
        self.calls: list[Object] = []
        self.permissions: dict[str, frozenset[str]] = {}
        """By restricted key."""
        self.ignored: set[str] = set()
        """Parameters of granted calls that nothing looked at: tests check that there are none."""
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
            operation, path_values = matching(request.method, request.url.path)
            self._authorize(request, operation.permission)
            text = request.url.query if request.method in ("GET", "DELETE") and not body else body.decode()
            params = nested(parse_qsl(text, keep_blank_values=True))
            if operation.params is not None:
                params = checked(params, operation.params)
            expand: Sequence[str] = params.pop("expand", [])
            refuse_unsupported(operation.params, params)
            watched = Watched(params)
            answer = operation.handler(self.account, watched, **path_values)
            self.ignored |= {f"{request.method} {request.url.path}: {name}" for name in watched.unseen}
            return 200, expanded(self.account, answer, expand)
        except RequestRefused as e:
            return e.status, _error(e)

    def _authorize(self, request: Request, permission: str) -> None:
        _, _, key = request.headers.get("authorization", "").partition(" ")
        if not _KEY.fullmatch(key):
            raise RequestRefused("Invalid API Key provided.", status=401)
        granted = self.permissions.get(key, frozenset())
        # Whoever may write may read.
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


def _error(e: RequestRefused) -> Object:
    error = {"message": str(e), "type": e.kind}
    if e.code:
        error["code"] = e.code
    if e.param:
        error["param"] = e.param
    return {"error": error}


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
