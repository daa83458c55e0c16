"""The console's pages, as the control plane has them: a test that looks at all of them misses no new one."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Final

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import compile_path

from control.console.frame.guards import PageGuard
from control.routers import ROUTERS

BEYOND: Final = ("/console/{path:path}",)


def _guard_of(dependant: Dependant) -> PageGuard | None:
    if isinstance(dependant.call, PageGuard):
        return dependant.call
    return next(filter(None, map(_guard_of, dependant.dependencies)), None)


def page_routes() -> Iterator[APIRoute]:
    """Of the console's pages, but for the one that takes what is left."""
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute) and _guard_of(route.dependant) and route.path not in BEYOND:
                yield route


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    # A path without a parameter is nearer than one with one.
    routes = sorted(page_routes(), key=lambda route: route.path.count("{"))
    return tuple((compile_path(route.path)[0], route.path) for route in routes)


def pattern_of(path: str) -> str | None:
    return next((pattern for matching, pattern in _patterns() if matching.match(path)), None)
