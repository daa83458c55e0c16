"""A region's side: what its ledger holds becomes a report, and the home's answer becomes what it enforces. Pure."""

from collections.abc import Mapping

from control.regions.need import Need, Pace, need, paced
from control.regions.terms import Account, Lease, Report, Slot, Source, slot
from quota.calls.leases import Holding, LeaseTerms
from quota.calls.publication import PREVIOUS_PERIODS_SECONDS
from quota.model import Elsewhere, Entitlement, Grant, MeterLimit, OrganizationSnapshot, OveragePolicy


def held_of(snapshot: OrganizationSnapshot) -> dict[Account, int]:
    """The ceilings that the ledger enforces."""
    held = {Account(Source.ALLOWANCE, m.meter): m.allowance for m in snapshot.meters}
    if snapshot.policy is OveragePolicy.METERED:
        held |= {Account(Source.OVERAGE, m.meter): m.overage_max for m in snapshot.meters if m.overage_max is not None}
    return held | {Account(Source.GRANT, g.id): g.units for g in snapshot.grants}


def drawn_of(snapshot: OrganizationSnapshot) -> dict[Slot, int]:
    """All that the ledger still knows to be drawn, of accounts with a ceiling and of others."""
    drawn = {}
    for u in snapshot.usage:
        drawn[slot(Account(Source.ALLOWANCE, u.meter), u.period_start)] = u.used - u.burnt - u.overage
        drawn[slot(Account(Source.OVERAGE, u.meter), u.period_start)] = u.overage
    return drawn | {slot(Account(Source.GRANT, g), 0): units for g, units in snapshot.grant_used.items()}


def paces_of(before: Mapping[Account, Pace], holding: Holding, at: float) -> dict[Account, Pace]:
    """How fast each account is drawn in the current period; none where no period is current."""
    period, drawn = holding.snapshot.period, drawn_of(holding.snapshot)
    if period is None:
        return {}
    return {
        account: paced(before.get(account), drawn.get(slot(account, period.start), 0), at)
        for account in held_of(holding.snapshot)
    }


def needs_of(
    paces: Mapping[Account, Pace], holding: Holding, last: Lease | None, least: Mapping[Account, int]
) -> dict[Account, Need]:
    """`last`: the lease that is enforced. Who does not know it, or whether others wait, changes nothing but asks for
    what is missing. `least`: as `least_of` has it."""
    needs, held = {}, held_of(holding.snapshot)
    for account, pace in paces.items():
        of_use = least.get(account, 0)
        if last is None:
            needs[account] = Need(wanted=need(pace, held[account], 0, of_use, False).wanted)
            continue
        needs[account] = need(pace, held[account], last.spare.get(account, 0), of_use, account in last.pressed)
        if account in last.recalled:
            needs[account] = Need(min(last.ceilings[account], held[account]), needs[account].wanted)
    return needs


def before_overage(holding: Holding, refused: Mapping[str, int]) -> dict[Account, int]:
    """Units that the accounts of refused meters lack which are used up before any overage is sold. What is free of
    them is of use, however little."""
    snapshot = holding.snapshot
    if snapshot.policy is not OveragePolicy.METERED or snapshot.period is None:
        return {}
    held, drawn, start = held_of(snapshot), drawn_of(snapshot), snapshot.period.start
    left = {a: max(0, units - drawn.get(slot(a, start), 0)) for a, units in held.items()}
    lacks = dict[Account, int]()
    for meter, cost in refused.items():
        accounts = [Account(Source.ALLOWANCE, meter)]
        accounts += [Account(Source.GRANT, g.id) for g in snapshot.grants if g.meter == meter]
        lacking = cost - sum(left.get(account, 0) for account in accounts)
        if lacking > 0:
            lacks |= {account: lacking for account in accounts if account in held}
    return lacks


def least_of(holding: Holding, refused: Mapping[str, int]) -> dict[Account, int]:
    """Units of the account that pays last without which a request that was refused is refused again: what the meter's
    other accounts have left pays for the rest. `refused`: by meter, the cost of the request."""
    snapshot = holding.snapshot
    period, held, drawn = snapshot.period, held_of(snapshot), drawn_of(snapshot)
    meters = {g.id: g.meter for g in snapshot.grants}
    least = {}
    for account, meter in last_of(snapshot).items():
        if period is None or meter not in refused:
            continue
        others = [a for a in held if a != account and meter == (meters[a.name] if a.source is Source.GRANT else a.name)]
        left = sum(max(0, held[a] - drawn.get(slot(a, period.start), 0)) for a in others)
        least[account] = max(0, refused[meter] - left)
    return least


def last_of(snapshot: OrganizationSnapshot) -> dict[Account, str]:
    """For each meter the account that pays last. It is the one that is short of what no other account has."""
    last = {}
    for m in snapshot.meters:
        grants = [g for g in snapshot.grants if g.meter == m.meter]
        if snapshot.policy is OveragePolicy.METERED:
            last[Account(Source.OVERAGE, m.meter)] = m.meter
        elif grants:
            last[Account(Source.GRANT, grants[-1].id)] = m.meter
        else:
            last[Account(Source.ALLOWANCE, m.meter)] = m.meter
    return last


def least_left(lease: Lease, paces: Mapping[Account, Pace]) -> int:
    """Units of the account of which the least is left under the lease, of those that anything was drawn of."""
    left = [units - paces[account].drawn for account, units in lease.ceilings.items() if account in paces]
    return max(0, min((units for units in left if units > 0), default=0))


def report_of(
    holding: Holding,
    epoch: int,
    wanted: Mapping[Account, int],
    least: Mapping[Account, int],
    first: Mapping[Account, int],
) -> Report:
    """`first`: as `before_overage` has it."""
    snapshot = holding.snapshot
    now_s = snapshot.now_us / 1_000_000
    starts = [p.start for p in snapshot.periods]
    return Report(
        asked_at=now_s,
        epoch=epoch,
        returns=holding.returns,
        number=holding.number,
        since=min([*starts, int(now_s)]) - PREVIOUS_PERIODS_SECONDS,
        held=held_of(snapshot),
        drawn=drawn_of(snapshot),
        wanted=wanted,
        least=least,
        first=first,
    )


def terms_of(entitlement: Entitlement, lease: Lease) -> LeaseTerms:
    """What the ledger is to enforce."""
    ceilings, sells = lease.ceilings, entitlement.policy is OveragePolicy.METERED
    meters, elsewhere = [], {}
    for m in entitlement.meters:
        overage = Account(Source.OVERAGE, m.meter)
        overage_max = ceilings.get(overage, None if sells else 0)
        meters.append(MeterLimit(m.meter, ceilings[Account(Source.ALLOWANCE, m.meter)], overage_max))
        elsewhere[m.meter] = _elsewhere(entitlement, m, lease)
    return LeaseTerms(
        version=entitlement.version,
        returns=lease.returns,
        number=lease.number,
        asked_s=int(lease.asked_at),
        lasts_s=round(lease.ends_at - lease.asked_at),
        periods=lease.periods,
        meters=tuple(meters),
        grants=tuple(
            Grant(g.id, g.meter, ceilings[Account(Source.GRANT, g.id)], g.expires_at) for g in entitlement.grants
        ),
        elsewhere=elsewhere,
    )


def _elsewhere(entitlement: Entitlement, m: MeterLimit, lease: Lease) -> Elsewhere:
    """What the organization has of the meter beside what this region holds."""
    limits = {Account(Source.ALLOWANCE, m.meter): m.allowance}
    limits |= {Account(Source.GRANT, g.id): g.units for g in entitlement.grants if g.meter == m.meter}
    more = {account: max(0, units - lease.ceilings[account]) for account, units in limits.items()}
    left = sum(max(0, units - lease.drawn_elsewhere.get(account, 0)) for account, units in more.items())
    overage = Account(Source.OVERAGE, m.meter)
    overage_max = 0
    if m.overage_max is not None and overage in lease.ceilings:
        overage_max = max(0, m.overage_max - lease.ceilings[overage])
    unsold = sum(lease.free.get(account, 0) for account in limits)
    return Elsewhere(sum(more.values()), left, overage_max, unsold + lease.free.get(overage, 0), unsold)
