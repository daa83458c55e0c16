"""What a home believes of what a region reports, and what it answers."""

from typing import Any

from control.regions.book import Book, answer
from control.regions.terms import Account, Late, Lease, Report, Source, slot
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
