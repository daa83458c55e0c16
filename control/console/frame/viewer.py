"""Who looks at a page, and the page as that person sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from starlette.responses import Response

from control.access.callers import Caller
from control.access.permissions import Permission
from control.console.frame.navigation import entries_for, is_below, paths_of
from control.console.frame.rendering import forget_notice, notice_of, page
from control.http.documented import endpoints_of
from control.journal import Author
from control.moments import moment
from control.replica import read_as_of


@dataclass(frozen=True, slots=True)
class Viewer:
    request: Request
    caller: Caller
    """As the control API knows this person."""
    who: str
    """The name that the person reads."""
    token: str
    """What a form of this session's pages sends (CSRF)."""
    twin: str | None = None
    """The endpoint that answers what the page shows: its path in the OpenAPI document."""

    def can(self, permission: Permission) -> bool:
        return permission in self.caller.permissions

    def has(self, path: str) -> bool:
        """Whether there is such a page: a link to none would be a dead end."""
        return path in paths_of(self.request.app)

    @property
    def author(self) -> Author:
        """In the journal."""
        return Author(self.caller.actor, self.request.scope["correlation_id"])

    @property
    def here(self) -> str:
        """This page's path and query."""
        url = self.request.url
        return f"{url.path}?{url.query}" if url.query else url.path

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        app, path, notice = self.request.app, self.request.url.path, notice_of(self.request)
        entries = entries_for(app, self.can)
        shared = {
            "viewer": self,
            "here": self.here,
            "twin": self.twin_address,
            "notice": notice,
            "navigation": [(each, is_below(path, each, entries)) for each in entries],
            "as_of": moment(read_as_of(app.state.context.clock())),
        }
        answer = page(template, status, **(shared | values))
        if notice is not None:
            forget_notice(answer)
        return answer

    @property
    def places(self) -> Mapping[str, Any]:
        """What the twin's path is about."""
        return self.request.path_params

    @property
    def twin_address(self) -> str | None:
        """With the same query, as far as the endpoint knows it."""
        if self.twin is None:
            return None
        path, _, fixed = self.twin.format_map(self.places).partition("?")
        known = {name for each in endpoints_of(self.request.app, path) for name in each.queries.get("GET", ())}
        asked = parse_qsl(self.request.url.query)  # without what is blank: a form sends filters that nobody chose
        query = urlencode([*parse_qsl(fixed), *((name, value) for name, value in asked if name in known)])
        return f"{path}?{query}" if query else path
