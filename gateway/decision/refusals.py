"""What a refusal looks like to the client: status, fields, problem body. Pure.

The texts of the ledger's refusals are in quota/refusals.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from identity.keysets.keyset import RETRY_SECONDS
from identity.refusals import TokenRefused
from quota import problems
from quota.model import Decision
from quota.problems import Problem
from quota.refusals import refusal_of

STATUS_LINES = {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}


@dataclass(slots=True)
class RefusalAnswer:
    problem: Problem
    detail: str
    fields: bytes = b""
    """Header lines, each with its CRLF."""
    extensions: Mapping[str, object] | None = None
    """Members of the problem body beyond the standard ones."""


@dataclass(slots=True)
class RefusalText:
    """A refusal ready to be answered more than once: only Date and correlation id are missing."""

    refusal: RefusalAnswer
    start: bytes
    fields: bytes
    body_before: bytes
    """Up to the correlation id."""
    body_after: bytes

    @classmethod
    def of(cls, refusal: RefusalAnswer) -> "RefusalText":
        mark = "\0"  # no detail holds one
        body = problems.body(refusal.problem, refusal.detail, mark, refusal.extensions)
        before, _, after = body.partition(b"\\u0000")
        fields = b"Content-Type: application/problem+json\r\n%b" % refusal.fields
        return cls(refusal, STATUS_LINES[refusal.problem.status], fields, before, after)


def of_decision(decision: Decision, charges: Mapping[str, int], upgrade_url: str | None) -> RefusalAnswer:
    """How a decision other than Admitted is answered."""
    refused = refusal_of(decision, charges, upgrade_url)
    fields = "".join(f"{name}: {value}\r\n" for name, value in refused.fields.items())
    return RefusalAnswer(refused.problem, refused.detail, fields.encode(), refused.members or None)


def of_token(refused: TokenRefused) -> RefusalAnswer:
    problem = problems.FORBIDDEN if refused.forbidden else problems.TOKEN_REFUSED
    fields = b"WWW-Authenticate: %b\r\n" % refused.challenge
    return RefusalAnswer(problem, refused.detail, fields, {"reason": refused.reason})


def without_keys() -> RefusalAnswer:
    """The token may be good: a client that gets a 401 throws it away."""
    detail = "The keys that tokens are verified with could not be read; try again."
    return RefusalAnswer(problems.KEYS_UNAVAILABLE, detail, b"Retry-After: %d\r\n" % RETRY_SECONDS)


def without_index() -> RefusalAnswer:
    """Redis has lost its memory, and is being told of the API keys again: this one may be good."""
    detail = "Whether there is such an API key could not be checked, so the request was not forwarded; try again."
    return RefusalAnswer(problems.LEDGER_UNAVAILABLE, detail, b"Retry-After: 1\r\n")


def unchecked() -> RefusalAnswer:
    """The ledger did not answer, so nobody knows whether the request may go on."""
    detail = "The quota could not be checked, so the request was not forwarded; try again."
    return RefusalAnswer(problems.LEDGER_UNAVAILABLE, detail, b"Retry-After: 1\r\n")


def of_open_breaker(retry_after_seconds: int) -> RefusalAnswer:
    """The circuit breaker is open, which is known before anything is charged."""
    detail = "The upstream is failing, so it gets no requests for a while."
    return RefusalAnswer(problems.UPSTREAM_AWAY, detail, b"Retry-After: %d\r\n" % retry_after_seconds)
