"""What is wrong with a configuration that has the right form: names of plans and meters that there are none of. Pure.

The server would refuse each of them, but only when its turn comes, and what came before would be done."""

from collections.abc import Iterator, Mapping, Sequence

from common.settings_file import Location
from quotagate.configuration.document import OrganizationItem, Read
from quotagate.configuration.server import Held, Plan


def faults(
    read: Read, plans: Mapping[str, Plan], orgs: Sequence[str], held: Mapping[str, Held], prune: bool
) -> Iterator[str]:
    """Of some of the organizations that the files name."""
    wanted = read.plans or {}
    archived = {code for code, plan in plans.items() if plan.archived or (prune and read.plans is not None)}
    given = wanted.keys() | (plans.keys() - archived)
    meters = {meter for plan in plans.values() for meter in plan.form["meters"]}
    meters |= {meter for terms in wanted.values() for meter in terms.meters}
    for org in orgs:
        item = (read.organizations or {})[org]
        at: Location = ("organizations", org)
        form = held[org].form if org in held else {}
        entitlement = form.get("entitlement") or {}
        if item.entitlement is not None and item.entitlement.plan not in given | {entitlement.get("plan")}:
            known = ", ".join(sorted(given)) or "none"
            place = read.place((*at, "entitlement", "plan"))
            yield f"{place}there is no plan {item.entitlement.plan} to be given (there are: {known})"
        # The server has meters of earlier versions of plans, too; those that are in use are seen here.
        used = entitlement.get("meters", {}).keys() | {grant["meter"] for grant in form.get("grants", ())}
        for where, meter in _meters(item):
            if meter not in meters | used:
                yield f"{read.place((*at, *where))}no plan has the meter {meter} (meters: {', '.join(sorted(meters))})"


def _meters(item: OrganizationItem) -> Iterator[tuple[Location, str]]:
    if item.entitlement is not None:
        for field in ("meters", "overage_max"):
            for meter in getattr(item.entitlement, field):
                yield ("entitlement", field, meter), meter
    for n, grant in enumerate(item.grants or ()):
        yield ("grants", n, "meter"), grant.meter
    for meter in item.caps or ():
        yield ("caps", meter), meter
