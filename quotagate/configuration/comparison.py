"""Files are compared with the server: both are read, and the files are refused where they cannot be applied."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quotagate.configuration import checking, document, forms, planning, server
from quotagate.configuration.applying import Api, Plans
from quotagate.configuration.document import Read
from quotagate.configuration.planning import Change, OfOrganization
from quotagate.configuration.server import Held
from quotagate.failure import ConfigurationFaulty
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


def compare(api: Api, source: Path, prune: bool, *, as_json: bool = False) -> Comparison:
    """Raises ConfigurationFaulty: nothing was done."""
    read = document.read(source)
    plans = server.read_plans(api)
    orgs, now = sorted(read.organizations or ()), datetime.now(UTC)
    faults: list[str] = []
    changed: list[OfOrganization] = []
    with progress("Reading organizations", len(orgs), as_json=as_json) as tick:
        for batch in server.in_batches(orgs):
            held = server.read_organizations(api, batch)
            faults += checking.faults(read, plans, batch, held, prune)
            compared = (_compared(read, org, held.get(org), prune, now) for org in batch)
            changed += [each for each in compared if each.changes]
            tick(len(batch))
    if faults:
        raise ConfigurationFaulty("\n".join(["nothing was done, since the configuration has faults", *faults]))
    if prune and read.organizations is not None:
        changed += _removed(api, read.organizations.keys(), as_json)
    if read.plans is None:
        return Comparison(None, tuple(changed))
    wanted = {code: forms.wanted_plan(terms) for code, terms in sorted(read.plans.items())}
    changes = tuple(planning.plan_changes(wanted, plans, prune))
    return Comparison(Plans(changes, wanted, plans, prune), tuple(changed))


def _compared(read: Read, org: str, held: Held | None, prune: bool, now: datetime) -> OfOrganization:
    item = (read.organizations or {})[org]

    def changes(seen: Held | None) -> tuple[Change, ...]:
        return tuple(planning.organization_changes(org, item, seen, prune=prune, now=now))

    return OfOrganization(org, held, changes(held), changes if held is not None and held.deleted else None)


def _removed(api: Api, named: Collection[str], as_json: bool) -> Iterator[OfOrganization]:
    with progress("Looking for others", server.count_organizations(api), as_json=as_json) as tick:
        for held in server.all_organizations(api):
            if held.org not in named:
                yield OfOrganization(held.org, held, (planning.removed(held.org),))
            tick(1)
