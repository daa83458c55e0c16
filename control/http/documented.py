"""What the OpenAPI document says of a path. Requests are refused by it, so it is never wrong about that."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import FastAPI
from starlette.routing import compile_path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path with its methods, and the query parameters that each takes."""

    path: re.Pattern[str]
    queries: Mapping[str, Sequence[str]]
    """By method."""


def endpoints_of(app: FastAPI, path: str) -> Iterator[Endpoint]:
    """Those whose path this is."""
    return (endpoint for endpoint in _endpoints(app.openapi) if endpoint.path.match(path))


@cache
def _endpoints(document: Callable[[], dict[str, Any]]) -> Sequence[Endpoint]:
    return [
        Endpoint(
            compile_path(path)[0],
            {
                method.upper(): sorted(p["name"] for p in operation.get("parameters", ()) if p["in"] == "query")
                for method, operation in operations.items()
            },
        )
        for path, operations in document()["paths"].items()
    ]
