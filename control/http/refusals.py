"""A request that is refused, and the problem document that says so (RFC 9457)."""

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from control.documents import View
from quota import problems
from quota.problems import Problem


class Refusal(HTTPException):
    """Ends a request with a problem document. The client reads the detail: it is a sentence, and holds no secret."""

    def __init__(self, problem: Problem, detail: str, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(problem.status, detail, headers)
        self.problem = problem
        self.members = members


def invalid_field(field: str, message: str) -> Refusal:
    """`field` says where it is: `query.from`, `body.expires_at`."""
    return Refusal(problems.INVALID, f"{field}: {message}", errors=[{"field": field, "message": message}])


class ProblemDocument(View):
    """An error, whichever it is (RFC 9457)."""

    type: str
    """Names the kind of problem. Client code may branch on it."""
    title: str
    status: int
    detail: str
    correlation_id: str | None = None
    """Quote it when you ask for help. It is also in X-Request-Id."""
    errors: list[dict[str, str]] | None = None
    """Of an invalid request: each field that is wrong, and why."""


DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem document",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
}
"""For routers: how errors look in the OpenAPI document."""


def answer(
    problem: Problem,
    detail: str,
    scope: Scope,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    body = problems.body(problem, detail, scope.get("correlation_id"), members)
    return Response(body, problem.status, headers, problems.MEDIA_TYPE)
