"""Files are compared with the server: both are read, and the files are refused where they cannot be applied."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quotagate.configuration import checking, document, forms, planning, server
from quotagate.configuration.applying import Api, Plans
from quotagate.configuration.document import Read
from quotagate.configuration.planning import Change, OfOrganization
from quotagate.configuration.server import Held
from quotagate.failure import CommandFailed
from quotagate.progress import progress


@dataclass(frozen=True, slots=True)
class Comparison:
    plans: Plans | None
    organizations: tuple[OfOrganization, ...]
    """Those of which something changes, in the order of their ids; those that are removed last."""

    def changes(self) -> Iterator[Change]:
        if self.plans is not None:
            yield from self.plans.changes
        for each in self.organizations:
            yield from each.changes


def compare(api: Api, source: Path, prune: bool) -> Comparison:
    """Raises CommandFailed: nothing was done."""
    read = document.read(source)
    plans = server.read_plans(api)
    orgs = sorted(read.organizations or ())
    with progress("Reading organizations", len(orgs)) as tick:
        held = server.read_organizations(api, orgs, tick)
    if faults := list(checking.faults(read, plans, held, prune)):
        raise CommandFailed("\n".join(["nothing was done, since the configuration has faults", *faults]))
    now = datetime.now(UTC)
    organizations = [_compared(read, org, held.get(org), prune, now) for org in orgs]
    if prune and read.organizations is not None:
        organizations += _removed(api, set(orgs))
    changed = tuple(each for each in organizations if each.changes)
    if read.plans is None:
        return Comparison(None, changed)
    wanted = {code: forms.wanted_plan(terms) for code, terms in sorted(read.plans.items())}
    changes = tuple(planning.plan_changes(wanted, plans, prune))
    return Comparison(Plans(changes, wanted, plans, prune), changed)


def _compared(read: Read, org: str, held: Held | None, prune: bool, now: datetime) -> OfOrganization:
    item = (read.organizations or {})[org]

    def changes(seen: Held | None) -> tuple[Change, ...]:
        return tuple(planning.organization_changes(org, item, seen, prune=prune, now=now))

    return OfOrganization(org, held, changes(held), changes if held is not None and held.deleted else None)


def _removed(api: Api, named: set[str]) -> Iterator[OfOrganization]:
    only_there = [each.org for each in server.list_organizations(api) if each.org not in named]
    for org, held in server.read_organizations(api, only_there, lambda: None).items():
        if not held.deleted:
            yield OfOrganization(org, held, (planning.removed(org),))
