"""What the demo history charges is what the ledger would have charged."""

from hypothesis import given
from hypothesis import strategies as st

from devstack.history.charging import Books
from quota.model import Admitted, Entitlement, Grant, MeterLimit, OveragePolicy, Status
from quota.periods import Period
from tests.quota.reference import Reference

NOW = 1_800_000_000
LIMITS = st.builds(MeterLimit, st.just("calls"), st.integers(0, 60), st.none() | st.integers(0, 40))
GRANTS = st.lists(
    st.builds(Grant, st.sampled_from("abc"), st.just("calls"), st.integers(1, 30), st.integers(NOW - 5, NOW + 5)),
    unique_by=lambda grant: grant.id,
)


@given(
    LIMITS,
    GRANTS,
    st.sampled_from(OveragePolicy),
    st.sampled_from(Status),
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
)
def test_a_charge_is_that_of_the_ledgers_model(
    limit: MeterLimit, grants: list[Grant], policy: OveragePolicy, status: Status, costs: list[int]
) -> None:
    period = Period(NOW - 100, NOW + 100)
    terms = Entitlement("acme", 1, status, "plan", policy, (limit,), tuple(grants), (period,))
    model, books = Reference(NOW, terms), Books()
    for number, units in enumerate(costs):
        decision, charges = model.take({"calls": units}, NOW * 1_000_000, f"r{number}")
        outcome = books.charge(terms, NOW, {"calls": units})
        if isinstance(decision, Admitted):
            assert isinstance(outcome, tuple)
            assert [(each.meter, each.units, each.overage, tuple(each.burnt.items())) for each in outcome[1]] == [
                (each.meter, each.units, each.overage, each.burnt) for each in charges
            ]
        else:
            assert not isinstance(outcome, tuple)
