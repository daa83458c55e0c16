from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.entitlements.derive import PlanVersion, State, Terms, derive, renewal
from quota.model import Grant, MeterLimit, OveragePolicy, RateLimit, Status
from quota.periods import CALENDAR_ANCHOR, Schedule

NOV_22 = 1_795_305_600.0  # 2026-11-22T00:00:00Z
DEC_1, JAN_1 = 1_796_083_200, 1_798_761_600

PLAN = PlanVersion(
    "growth",
    3,
    "Growth",
    OveragePolicy.METERED,
    (MeterLimit("api_calls", 100_000), MeterLimit("tokens", 5, 10)),
    RateLimit(200, 1, 400),
)


def state(
    terms: Terms | None, *, version: int = 7, grants: tuple[Grant, ...] = (), next_change_at: float | None = None
) -> State:
    return State("acme", "Acme", version, version > 0, None, terms, next_change_at, grants)


def terms(**own: Any) -> Terms:
    return Terms(plan=PLAN, status=Status.ACTIVE, schedule=Schedule(CALENDAR_ANCHOR), **own)


def test_without_terms_of_its_own_an_organization_has_the_plans() -> None:
    derived = derive(state(terms()), NOV_22)
    assert (derived.version, derived.status, derived.policy, derived.rate) == (7, Status.ACTIVE, PLAN.policy, PLAN.rate)
    assert derived.meters == PLAN.meters


@pytest.mark.parametrize(("plans", "own", "derived"), [(None, None, None), (8, None, 8), (8, 3, 3), (None, 3, 3)])
def test_the_number_of_requests_under_way_is_the_organizations_own_else_the_plans(
    plans: int | None, own: int | None, derived: int | None
) -> None:
    given_terms = Terms(
        replace(PLAN, concurrent_max=plans), Status.ACTIVE, Schedule(CALENDAR_ANCHOR), concurrent_max=own
    )
    assert derive(state(given_terms), NOV_22).concurrent_max == derived


def test_terms_of_its_own_take_the_place_of_the_plans_one_by_one() -> None:
    own = terms(
        policy=OveragePolicy.HARD_STOP, allowances={"api_calls": 5}, overage_max={"tokens": 0}, rate=RateLimit(1)
    )
    derived = derive(state(own), NOV_22)
    assert derived.meters == (MeterLimit("api_calls", 5), MeterLimit("tokens", 5, 0))
    assert (derived.policy, derived.rate) == (OveragePolicy.HARD_STOP, RateLimit(1))


def test_the_current_period_and_the_next_are_published_ahead() -> None:
    current, following = derive(state(terms()), NOV_22).periods
    assert NOV_22 in current
    assert (current.end, following.start, following.end) == (DEC_1, DEC_1, JAN_1)


@given(st.integers(0, 2_000_000_000), st.floats(0, 2_000_000_000))
def test_whatever_the_anchor_now_is_in_the_first_published_period(anchor: int, now: float) -> None:
    later = Terms(plan=PLAN, status=Status.ACTIVE, schedule=Schedule(anchor % 2_419_200))
    first, following = derive(state(later), now + 3_000_000).periods
    assert now + 3_000_000 in first
    assert first.end == following.start


def test_a_grant_of_a_meter_that_the_plan_lacks_opens_it_for_the_grants_units_only() -> None:
    grant = Grant("g1", "images", 3, JAN_1)
    derived = derive(state(terms(), grants=(grant,)), NOV_22)
    assert MeterLimit("images", 0, 0) in derived.meters
    assert derived.grants == (grant,)


@pytest.mark.parametrize(("version", "status"), [(0, Status.NONE), (7, Status.ENDED)])
def test_without_terms_in_force_nothing_is_served(version: int, status: Status) -> None:
    derived = derive(state(None, version=version), NOV_22)
    assert (derived.status, derived.meters, derived.periods, derived.version) == (status, (), (), version)


@pytest.mark.parametrize(
    ("current", "next_change_at", "renewed_at"),
    [
        (terms(), None, DEC_1),
        (terms(), NOV_22 + 60, NOV_22 + 60),
        (terms(), DEC_1 + 60.0, DEC_1),
        (None, None, None),
        (None, NOV_22 + 60, NOV_22 + 60),
    ],
)
def test_it_is_renewed_when_its_first_period_is_over_or_other_terms_begin(
    current: Terms | None, next_change_at: float | None, renewed_at: float | None
) -> None:
    published = state(current, next_change_at=next_change_at)
    assert renewal(published, derive(published, NOV_22), NOV_22) == renewed_at


@given(
    st.dictionaries(st.sampled_from(["api_calls", "tokens", "images"]), st.integers(0, 200)),
    st.one_of(st.none(), st.integers(0, 200)),
    st.sampled_from(OveragePolicy),
)
def test_an_organizations_own_cap_only_lowers_what_may_be_sold_and_changes_nothing_else(
    caps: dict[str, int], plans: int | None, policy: OveragePolicy
) -> None:
    plan = replace(PLAN, policy=policy, meters=(MeterLimit("api_calls", 9, plans), MeterLimit("tokens", 5, 10)))
    before = state(Terms(plan=plan, status=Status.ACTIVE, schedule=Schedule(CALENDAR_ANCHOR)))
    free, capped = derive(before, NOV_22), derive(replace(before, caps=caps), NOV_22)
    assert replace(capped, meters=free.meters) == free
    for own, was in zip(capped.meters, free.meters, strict=True):
        sold = [limit for limit in (was.overage_max, caps.get(was.meter)) if limit is not None]
        assert own == replace(was, overage_max=min(sold, default=None))
