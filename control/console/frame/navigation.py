"""Where a viewer may go. An entry is shown once its page is there and the viewer may see it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from control.access.permissions import Permission


@dataclass(frozen=True, slots=True)
class Entry:
    title: str
    path: str
    permission: Permission | None
    icon: str
    """The name of a drawing in templates/parts/icons.html."""


ENTRIES: Final = (
    Entry("Overview", "/console", None, "overview"),
    Entry("Organizations", "/console/organizations", Permission.ORGANIZATIONS_READ, "organizations"),
    Entry("Incidents", "/console/incidents", Permission.INCIDENTS_READ, "incidents"),
    Entry("Decisions", "/console/decisions", Permission.DECISIONS_READ, "decisions"),
    Entry("Analytics", "/console/analytics", None, "analytics"),
    Entry("What-if", "/console/analytics/what-if", None, "what_if"),
    Entry("Approvals", "/console/approvals", Permission.APPROVALS_READ, "approvals"),
    Entry("Webhooks", "/console/webhooks", Permission.WEBHOOKS_READ, "webhooks"),
    Entry("People", "/console/people", Permission.PEOPLE_ADMIN, "person"),
    Entry("Journal", "/console/journal", Permission.AUDIT_READ, "journal"),
)


def entries_for(app: FastAPI, can: Callable[[Permission], bool]) -> Sequence[Entry]:
    there = paths_of(app)
    return [each for each in ENTRIES if each.path in there and (each.permission is None or can(each.permission))]


def is_below(path: str, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Whether the page at `path` belongs to this entry, and to none that is nearer."""
    within = [each.path for each in entries if path == each.path or path.startswith(f"{each.path}/")]
    return bool(within) and max(within, key=len) == entry.path and (entry.path != "/console" or path == "/console")


@cache
def paths_of(app: FastAPI) -> frozenset[str]:
    return frozenset(str(route.path) for route in iter_route_contexts(app.routes))
