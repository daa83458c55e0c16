"""What a home believes of what a region reports, and what it answers."""

from typing import Any

from control.regions.book import Book, answer
from control.regions.region import least_of
from control.regions.terms import Account, Late, Lease, Report, Source, slot
from quota.calls.leases import Holding
from quota.model import Grant, MeterLimit, OrganizationSnapshot, OveragePolicy, Status
from quota.periods import Period

CALLS = Account(Source.ALLOWANCE, "api_calls")
NOW = 1_000
PERIODS = (Period(0, 10_000), Period(10_000, 20_000))
THIS = slot(CALLS, 0)
LEASE_SECONDS = 30


def report(**changes: Any) -> Report:
    usual: dict[str, Any] = {"asked_at": NOW, "epoch": 1, "returns": 0, "number": 0, "since": 0}
    return Report(**usual | changes)


def asked(book: Book, region: str, limit: int = 1000, now: float = NOW, **changes: Any) -> Lease:
    lease = answer(book, region, report(**changes), {CALLS: limit}, PERIODS, LEASE_SECONDS, now)
    assert isinstance(lease, Lease)
    return lease


def test_a_home_that_has_gone_back_to_an_older_state_reserves_what_a_region_holds() -> None:
    book = Book()
    lease = asked(book, "eu", number=40, held={CALLS: 700}, drawn={THIS: 500})
    assert book.reserved(THIS) >= 700
    assert lease.number == 41, "the region's ledger installs no lower one"
    assert asked(book, "us", wanted={CALLS: 1000}).ceilings[CALLS] <= 300


def test_a_region_that_has_forgotten_its_returns_is_told_how_many_there_were() -> None:
    book = Book()
    asked(book, "eu", returns=3)
    late = answer(book, "eu", report(returns=0), {CALLS: 1000}, PERIODS, LEASE_SECONDS, NOW)
    assert late == Late(epoch=1, returns=3)


def test_a_region_that_never_asked_before_gets_at_least_what_a_request_waits_for() -> None:
    assert asked(Book(), "eu", wanted={CALLS: 400}, least={CALLS: 400}).ceilings[CALLS] >= 400


def test_a_lease_tells_what_others_have_drawn_and_what_is_free() -> None:
    book = Book()
    held = asked(book, "us", wanted={CALLS: 300}).ceilings[CALLS]
    asked(book, "us", number=1, held={CALLS: held}, drawn={THIS: 120})
    lease = asked(book, "eu")
    assert lease.drawn_elsewhere == {CALLS: 120}
    assert lease.free == {CALLS: 1000 - held - lease.ceilings[CALLS]}


def test_a_region_that_is_short_makes_the_others_return_until_nobody_waits() -> None:
    book = Book()
    asked(book, "us", limit=100, wanted={CALLS: 100}, least={CALLS: 100})
    short = asked(book, "eu", limit=100, wanted={CALLS: 50}, least={CALLS: 50})
    assert short.short == {CALLS: 50}
    us: dict[str, Any] = {"limit": 100, "number": 1, "held": {CALLS: 100}}
    assert asked(book, "us", **us).pressed == {CALLS}
    assert asked(book, "us", now=NOW + 60, **us).pressed == frozenset()


def test_a_region_gets_nothing_of_what_is_too_little_for_it_and_another_may_complete() -> None:
    book = Book()
    terms: dict[str, Any] = {"limit": 12, "number": 1, "least": {CALLS: 7}}
    for region in ("us", "eu"):
        asked(book, region, limit=12, wanted={CALLS: 6}, least={CALLS: 6})
    for region in ("eu", "us"):
        short = asked(book, region, held={CALLS: 6}, wanted={CALLS: 7}, **terms)
        assert (short.ceilings, short.short) == ({CALLS: 6}, {CALLS: 1})
    gave_up: dict[str, Any] = terms | {"returns": 1, "held": {CALLS: 0}, "wanted": {CALLS: 7}}
    assert asked(book, "us", **gave_up).ceilings[CALLS] == 0
    assert asked(book, "eu", **gave_up).ceilings[CALLS] == 7


def holding(allowance: int, grant: int) -> Holding:
    snapshot = OrganizationSnapshot(
        now_us=NOW * 1_000_000,
        version=1,
        status=Status.ACTIVE,
        periods=PERIODS,
        rate_interval_us=0,
        meters=(MeterLimit("api_calls", allowance),),
        policy=OveragePolicy.HARD_STOP,
        grants=(Grant("bonus", "api_calls", grant, 9_000),),
    )
    return Holding(snapshot, 0, 1, NOW, LEASE_SECONDS)


def test_what_other_accounts_have_left_lowers_what_is_of_use() -> None:
    bonus = Account(Source.GRANT, "bonus")
    assert least_of(holding(allowance=3, grant=0), {"api_calls": 7}) == {bonus: 4}
    assert least_of(holding(allowance=9, grant=0), {"api_calls": 7}) == {bonus: 0}
    assert least_of(holding(allowance=9, grant=0), {"tokens": 7}) == {}
