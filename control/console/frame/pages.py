"""Routes of pages: who may look, and which endpoint answers the same as JSON."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Depends
from starlette.responses import Response

from control.access.permissions import Permission
from control.console.frame.guards import ActionGuard, PageGuard, ViewerOf, console_viewer
from control.console.frame.page_route import PageRoute

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Response]])


class Pages(APIRouter):
    """Pages of a subject. Each shows what its twin answers, to whoever may ask the twin."""

    def __init__(
        self, prefix: str, viewer_of: ViewerOf = console_viewer, route_class: type[PageRoute] = PageRoute
    ) -> None:
        super().__init__(prefix=prefix, include_in_schema=False, route_class=route_class)
        self._viewer_of = viewer_of

    def page(self, path: str, *, permission: Permission | None, twin: str | None) -> Callable[[Handler], Handler]:
        """`permission`: None for what everybody sees who has signed in. `twin`: its path in the OpenAPI document, and
        behind a question mark what the page asks of it."""
        return self.get(path, dependencies=[_depends(PageGuard(permission, twin, self._viewer_of))])

    def action(self, path: str, *, permission: Permission | None) -> Callable[[Handler], Handler]:
        """Something that a form of a page of the same session does."""
        return self.post(path, dependencies=[_depends(ActionGuard(permission, self._viewer_of))])


def _depends(guard: PageGuard | ActionGuard) -> Any:
    return Depends(guard)
