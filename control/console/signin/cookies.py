"""The console's cookies. They have no Domain and are Secure, as their prefix promises; browsers take such a cookie over
plain http from this machine only, where `quotagate up` runs (Chromium and Firefox; not Safari)."""

from typing import Final

from fastapi import Request
from starlette.responses import Response

from control.access.signin.attempt import ATTEMPT_SECONDS, Attempt
from control.http.signed_in import SESSION_COOKIE

ATTEMPT_COOKIE: Final = "__Host-quotagate-signin"


def keep_session(answer: Response, secret: str) -> None:
    """Until the browser closes; the server ends it earlier."""
    _set(answer, SESSION_COOKIE, secret, None)


def forget_session(answer: Response) -> None:
    _set(answer, SESSION_COOKIE, "", 0)


def keep_attempt(answer: Response, attempt: Attempt) -> None:
    _set(answer, ATTEMPT_COOKIE, attempt.to_cookie(), ATTEMPT_SECONDS)


def attempt_of(request: Request) -> Attempt | None:
    return Attempt.from_cookie(request.cookies.get(ATTEMPT_COOKIE, ""))


def forget_attempt(answer: Response) -> None:
    _set(answer, ATTEMPT_COOKIE, "", 0)


def _set(answer: Response, name: str, value: str, max_age_seconds: int | None) -> None:
    # Lax, since a provider sends the browser back from another site; a form of another site sends neither.
    answer.set_cookie(name, value, max_age=max_age_seconds, path="/", secure=True, httponly=True, samesite="lax")
