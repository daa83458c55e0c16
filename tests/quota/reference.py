"""What the ledger must say, in plain Python: the model that the scripts are tested by."""

import math
from collections import Counter
from collections.abc import Mapping

from quota.access import KeyRecord
from quota.events import Charge, UsageEvent
from quota.model import (
    Admitted,
    ConcurrencyLimited,
    Decision,
    Entitlement,
    Exhausted,
    Level,
    MeterBalance,
    NotEntitled,
    NotInPlan,
    OveragePolicy,
    RateLimited,
    Settlement,
)
from quota.periods import Period


class Reference:
    """What the ledger must say: three sources for each meter, arrival time, idempotency keys, requests under way; and
    of each API key the units in its windows, and an arrival time."""

    def __init__(self, now: int, terms: Entitlement) -> None:
        self.now = now
        self.terms = terms
        self.counters: Counter[str] = Counter()  # named as the hash's fields
        self.arrival_us = 0.0
        self.once: dict[str, tuple[bytes, set[str]]] = {}
        """By idempotency key: the receipt of the request charged, and the requests that may yet be delivered for it."""
        self.under_way: set[str] = set()
        self.refunds: Counter[int] = Counter()  # by period
        self.windows: dict[tuple[str, str, int], tuple[int, int]] = {}
        """By key, meter and window: the start of its last one, and the units used in that."""
        self.key_arrival_us: dict[str, float] = {}

    def publish(self, terms: Entitlement) -> None:
        self.terms = terms
        listed = {f"grant:{grant.id}" for grant in terms.grants}
        for name in [n for n in self.counters if n.startswith("grant:") and n not in listed]:
            del self.counters[name]

    def nonzero(self) -> dict[str, int]:
        return {name: n for name, n in self.counters.items() if n}

    def limit(self, meter: str) -> tuple[int, float]:
        """Allowance, and the overage that may be sold in all."""
        for m in self.terms.meters:
            if m.meter == meter:
                sold = self.terms.policy is OveragePolicy.METERED
                return m.allowance, (math.inf if m.overage_max is None else m.overage_max) if sold else 0
        return 0, 0

    def counter(self, kind: str, start: int, meter: str) -> int:
        return self.counters[f"{kind}:{start}:{meter}"]

    def pay(self, meter: str, cost: int, start: int) -> tuple[Charge, int]:
        """The charge for as much of `cost` as the sources give, and the rest."""
        allowance, over_max = self.limit(meter)
        used, burnt, over = (self.counter(kind, start, meter) for kind in ("used", "burnt", "over"))
        rest = cost - min(cost, max(0, allowance - (used - burnt - over)))
        paid = []
        for grant in sorted(self.terms.grants, key=lambda g: (g.expires_at, g.id)):
            burn = min(rest, grant.units - self.counters[f"grant:{grant.id}"])
            if grant.meter == meter and grant.expires_at > self.now and burn > 0:
                paid.append((grant.id, burn))
                rest -= burn
        sold = int(min(rest, max(0, over_max - over)))
        return Charge(meter, cost - (rest - sold), sold, tuple(paid)), rest - sold

    def apply(self, start: int, charge: Charge) -> None:
        self.counters[f"used:{start}:{charge.meter}"] += charge.units
        self.counters[f"over:{start}:{charge.meter}"] += charge.overage
        for grant, n in charge.burnt:
            self.counters[f"burnt:{start}:{charge.meter}"] += n
            if n > 0 or any(g.id == grant for g in self.terms.grants):
                self.counters[f"grant:{grant}"] += n

    def balance(self, meter: str) -> MeterBalance:
        start = self.terms.periods[0].start
        allowance, _ = self.limit(meter)
        used, burnt, over = (self.counter(kind, start, meter) for kind in ("used", "burnt", "over"))
        live = [g for g in self.terms.grants if g.meter == meter and g.expires_at > self.now]
        granted = sum(g.units - self.counters[f"grant:{g.id}"] for g in live)
        return MeterBalance(
            meter, allowance + burnt + granted, max(0, allowance - (used - burnt - over)) + granted, over
        )

    def window(self, seconds: int, at_s: int, period_start: int) -> Period:
        """The window of a key's quota that holds `at_s`."""
        if not seconds:
            return next(period for period in self.terms.periods if period.start == period_start)
        start = at_s // seconds * seconds
        return Period(start, start + seconds)

    def used_in(self, name: tuple[str, str, int], window: Period) -> int:
        start, used = self.windows.get(name, (0, 0))
        return used if start == window.start else 0

    def refused_by_key(self, record: KeyRecord, costs: Mapping[str, int], now_us: int) -> Exhausted | None:
        """The words of the script's limits go by meter, in the order in which the record first names it."""
        for meter in dict.fromkeys(quota.meter for quota in record.quotas):
            for quota in (q for q in record.quotas if q.meter == meter):
                window = self.window(quota.window_seconds, now_us // 1_000_000, self.terms.periods[0].start)
                used, cost = self.used_in((record.id, meter, quota.window_seconds), window), costs.get(meter, 0)
                if cost and used + cost > quota.units:
                    balance = MeterBalance(meter, quota.units, max(0, quota.units - used), 0)
                    return Exhausted(window, now_us, balance, cost > quota.units, Level.KEY)
        return None

    def count_for_key(self, record: KeyRecord, costs: Mapping[str, int], now_us: int) -> bool:
        """Whether a quota of the key was charged."""
        charged = [quota for quota in record.quotas if quota.meter in costs]
        for quota in charged:
            window = self.window(quota.window_seconds, now_us // 1_000_000, self.terms.periods[0].start)
            name = record.id, quota.meter, quota.window_seconds
            self.windows[name] = window.start, self.used_in(name, window) + costs[quota.meter]
        return bool(charged)

    def correct_for_key(self, receipt: UsageEvent, corrections: tuple[Charge, ...]) -> None:
        for (key, meter, seconds), (start, used) in self.windows.items():
            for charge in corrections:
                if (key, meter) == (receipt.key, charge.meter) and receipt.at is not None:
                    charged_in = receipt.at // seconds * seconds if seconds else receipt.period_start
                    if charged_in == start:
                        self.windows[key, meter, seconds] = start, max(0, used + charge.units)

    def take(
        self,
        costs: Mapping[str, int],
        now_us: int,
        request_id: str,
        key: str | None = None,
        record: KeyRecord | None = None,
    ) -> tuple[Decision, tuple[Charge, ...]]:
        """A decision whose receipt is empty, unless it is that of another request with the key."""
        period = self.terms.periods[0]
        if not self.terms.status.served:
            return NotEntitled(self.terms.status), ()
        paid = []
        charged, attempts = self.once.get(key or "", (b"", set()))
        for meter, cost in costs.items():
            cost = 0 if charged else cost
            if meter not in {m.meter for m in self.terms.meters}:
                return NotInPlan(meter), ()
            charge, short = self.pay(meter, cost, period.start)
            if short:
                balance = self.balance(meter)
                return Exhausted(period, now_us, balance, cost > balance.limit + self.limit(meter)[1]), ()
            paid.append(charge)
        if record and not charged and (refused := self.refused_by_key(record, costs, now_us)):
            return refused, ()
        arrivals_us = []
        for rate, before_us, level in (
            (self.terms.rate, self.arrival_us, Level.ORGANIZATION),
            (record and record.rate, self.key_arrival_us.get(record.id if record else "", 0), Level.KEY),
        ):
            arrivals_us.append(max(before_us, now_us) + (rate.interval_us if rate else 0))
            burst_us = rate.interval_us * rate.burst if rate else math.inf
            early_us = arrivals_us[-1] - now_us - burst_us
            if rate and early_us > 0:
                return RateLimited(period, now_us, math.ceil(early_us), rate.interval_us, burst_us, level), ()
        permits_max = self.terms.concurrent_max
        if permits_max is not None and len(self.under_way) >= permits_max:
            return ConcurrencyLimited(period, now_us, permits_max), ()
        if self.terms.rate:
            self.arrival_us = arrivals_us[0]
        if record and record.rate:
            self.key_arrival_us[record.id] = arrivals_us[1]
        if permits_max is not None:
            self.under_way.add(request_id)
        if charged:
            attempts.add(request_id)
            paid.clear()
        for charge in paid:
            self.apply(period.start, charge)
        balances = [self.balance(meter) for meter in costs]
        return Admitted(period, now_us, balances, charged, bool(charged), permits_max is not None), tuple(paid)

    def give_back(self, key: str, receipt: bytes, request_id: str) -> bool:
        """Whether this request, of an idempotency key, was the last one that the charge stayed for."""
        charged, attempts = self.once.get(key, (b"", set()))
        if charged != receipt:
            return receipt.split(b" ")[1].decode() == request_id
        attempts.discard(request_id)
        if not attempts:
            del self.once[key]
        return not attempts

    def settle(self, receipt: UsageEvent, actual: Mapping[str, int]) -> tuple[Settlement, tuple[Charge, ...]]:
        moved, settled = [], Settlement(True, {}, {})
        for charge in receipt.charges:
            more = actual.get(charge.meter, charge.units) - charge.units
            if more > 0:
                correction, short = self.pay(charge.meter, more, receipt.period_start)
                settled.units[charge.meter] = correction.units
                if short:
                    settled.shortfall[charge.meter] = short
            elif more < 0:
                sold, burnt = min(-more, charge.overage), []
                back = -more - sold
                for grant, n in reversed(charge.burnt):
                    if back:
                        burnt.append((grant, -min(n, back)))
                        back -= min(n, back)
                correction = Charge(charge.meter, more, -sold, tuple(burnt))
                settled.units[charge.meter] = more
            if more and correction.units:
                self.apply(receipt.period_start, correction)
                moved.append(correction)
        self.correct_for_key(receipt, tuple(moved))
        return settled, tuple(moved)
