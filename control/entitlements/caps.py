"""Caps of overage that an organization sets for itself: it is refused there, before the vendor's own limit.

A cap is the organization's, not of its terms: whatever plan it has or will have, `derive` lowers the units that may be
sold beyond an allowance to the cap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from control import journal, sql
from control.db import Connection, Transactions
from control.entitlements.derive import derive
from control.entitlements.stored_state import check_meters, load_state
from control.journal import Author, Change
from control.moments import moment
from control.organizations.store import OrganizationUnknown
from quota.model import Entitlement, OveragePolicy


class CapChanged(Exception):
    """The cap is not the one that was to be changed: somebody else has set another one."""

    def __init__(self, units: int | None) -> None:
        super().__init__(f"The cap is {units} units by now." if units is not None else "There is no cap by now.")
        self.units = units


@dataclass(frozen=True, slots=True)
class Price:
    """What units beyond the allowance cost."""

    amount_minor: int
    units: int
    currency: str

    def of(self, units: int) -> int:
        """In minor units, rounded up: nobody pays more."""
        return -(-units * self.amount_minor // self.units)


@dataclass(frozen=True, slots=True)
class Cap:
    """One meter's cap, beside what the vendor allows and what is in force."""

    meter: str
    units: int | None
    """None: the organization has none."""
    allowed: int | None
    """By the plan, or by what an admin laid over it; None: any number."""
    in_force: int | None
    """What gateways go by; None: any number."""
    price: Price | None
    set_at: datetime | None
    """None: there never was a cap."""
    set_by: str | None
    units_before: int | None
    """What the cap was before the last change; None: there was none."""


async def read(connection: Connection, org: str, now: float) -> Sequence[Cap]:
    """Of each meter that the organization has, or had a cap of. Raises OrganizationUnknown."""
    state = await load_state(connection, org, now)
    if state is None:
        raise OrganizationUnknown(org)
    stored = {each.meter: each for each in await sql.caps.latest(connection, org=org)}
    prices = {
        each.meter: Price(each.amount_minor, each.units, each.currency)
        for each in await sql.caps.prices(connection, org=org, at=moment(now))
    }
    allowed, in_force = _sold(derive(replace(state, caps={}), now)), _sold(derive(state, now))
    found = []
    for meter in sorted({*stored, *in_force}):
        last = stored.get(meter)
        found.append(
            Cap(
                meter=meter,
                units=last.units if last else None,
                allowed=allowed.get(meter, 0),
                in_force=in_force.get(meter, 0),
                price=prices.get(meter),
                set_at=last.effective_from if last else None,
                set_by=last.set_by if last else None,
                units_before=last.units_before if last else None,
            )
        )
    return found


async def set_cap(
    db: Transactions,
    org: str,
    meter: str,
    units: int | None,
    now: float,
    author: Author,
    expected: Sequence[int | None] | None = None,
) -> int | None:
    """The cap that there was; the same again changes nothing. `units`: None for no cap. `expected`: the caps that may
    be changed; None: whatever it is.

    Raises OrganizationUnknown, MeterUnknown, CapChanged."""
    async with db.transaction() as connection:
        if await sql.organizations.lock(connection, org=org) is None:
            raise OrganizationUnknown(org)
        before = next((each.units for each in await sql.caps.latest(connection, org=org) if each.meter == meter), None)
        if expected is not None and before not in expected:
            raise CapChanged(before)
        if before == units:
            return before
        await check_meters(connection, [meter])
        await sql.caps.put(connection, org=org, meter=meter, at=moment(now), units=units, set_by=author.actor)
        await sql.entitlements.bump_publication(connection, org=org)
        change = Change("overage_cap.set", org, _content(meter, before), _content(meter, units))
        await journal.record(connection, author, now, [change])
    return before


def _sold(entitlement: Entitlement) -> dict[str, int | None]:
    """Units of each meter that may be sold beyond its allowance."""
    sold = entitlement.policy is OveragePolicy.METERED
    return {limit.meter: limit.overage_max if sold else 0 for limit in entitlement.meters}


def _content(meter: str, units: int | None) -> dict[str, Any]:
    return {"meter": meter, "units": units}
