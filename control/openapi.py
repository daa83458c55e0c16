"""What the control API is, with nothing to serve it: every endpoint, and the document that describes them."""

from collections.abc import Mapping
from functools import cache
from itertools import chain
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from control.api.usage import own_usage
from control.http.guards import PUBLIC, bearer, document_permissions
from control.http.refusals import ProblemDocument
from control.routers import ROUTERS
from control.usage.records import UsageRecord

COMPILERS_DOCSTRING: Final = "mypyc filler docstring"  # of enums in compiled modules
BOUNDS: Final = {"ge": "minimum", "le": "maximum"}
API_VERSION: Final = "1.0"
"""Of the API, not of the package. Before the dot: what breaks clients that were written for the version before."""


def described(**options: Any) -> FastAPI:
    """An app with every endpoint. `options` are FastAPI's."""
    app = FastAPI(
        title="Quotagate control API",
        version=API_VERSION,
        description="Organizations, plans, entitlements, grants and usage. Errors are problem documents (RFC 9457).",
        openapi_url=None,  # and with it FastAPI's own pages, which load scripts from elsewhere: docs.py has ours
        **options,
    )
    app.router.routes.insert(0, own_usage)  # before FastAPI's: it costs a third of them
    # The routes themselves: to include a router is to analyse its endpoints again, which takes 0.3 s of each app.
    for router in ROUTERS:
        app.router.routes.extend(router.routes)
    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way of extending it
    return app


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document, as `GET /openapi.json` answers it. Every app has the same endpoints, so a process makes it
    once, which takes half a second."""
    content = FastAPI.openapi(described())
    schemas = content.setdefault("components", {}).setdefault("schemas", {})
    for model in (ProblemDocument, UsageRecord):  # which no signature names
        schemas.setdefault(model.__name__, model.model_json_schema())
    for name, schema in schemas.items():
        if schema.get("description") == COMPILERS_DOCSTRING:
            del schema["description"]
        schemas[name] = _with_bounds(schema)
    content["servers"] = [{"url": "/"}]
    _complete_operations(content)
    document_permissions(ROUTERS, content)
    return content


def _complete_operations(content: Mapping[str, Any]) -> None:
    """`operationId`, by which clients that are generated name their functions: the name of the endpoint alone, which is
    no other's. `security` of those that need none, or by the settings only. Raises ValueError."""
    named: dict[str, APIRoute] = {}
    for route in chain.from_iterable(router.routes for router in ROUTERS):
        if isinstance(route, APIRoute) and route.include_in_schema:
            if route.name in named:
                raise ValueError(f"{route.path} and {named[route.name].path} are both called {route.name}")
            named[route.name] = route
            for method in route.methods or ():
                operation = content["paths"][route.path][method.lower()]
                operation["operationId"] = route.name
                public = (method, route.path) in PUBLIC
                operation.setdefault("security", [] if public else [{}, {bearer.scheme_name: []}])


def _with_bounds(schema: Any) -> Any:
    """Pydantic leaves bounds by its own names where something of ours reads the number first (`documents.Whole`)."""
    if isinstance(schema, list):
        return [_with_bounds(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "integer":
        schema = {BOUNDS.get(name, name): value for name, value in schema.items()}
    return {name: _with_bounds(value) for name, value in schema.items()}
