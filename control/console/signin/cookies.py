"""Cookies of sessions and of attempts to sign in, of console and portal. They have no Domain and are Secure, as their
prefix promises; browsers take such a cookie over plain http from this machine only, where `quotagate up` runs (Chromium
and Firefox; not Safari)."""

from fastapi import Request
from starlette.responses import Response

from control.access.signin.attempt import ATTEMPT_SECONDS, Attempt


def keep_session(answer: Response, cookie: str, secret: str) -> None:
    """Until the browser closes; the server ends it earlier."""
    _set(answer, cookie, secret, None)


def keep_attempt(answer: Response, cookie: str, attempt: Attempt) -> None:
    _set(answer, cookie, attempt.to_cookie(), ATTEMPT_SECONDS)


def attempt_of(request: Request, cookie: str, start: str) -> Attempt | None:
    """`start`: of the pages that it may return to."""
    return Attempt.from_cookie(request.cookies.get(cookie, ""), start)


def forget(answer: Response, cookie: str) -> None:
    _set(answer, cookie, "", 0)


def _set(answer: Response, name: str, value: str, max_age_seconds: int | None) -> None:
    # Lax, since a provider sends the browser back from another site; a form of another site sends neither.
    answer.set_cookie(name, value, max_age=max_age_seconds, path="/", secure=True, httponly=True, samesite="lax")
