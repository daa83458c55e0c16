"""What becomes of a charge, by outcome, rules and reported units: a table, without a gateway."""

from collections.abc import Mapping
from typing import get_args

import pytest

from gateway.decision.corrections import GIVEN_BACK, STAYS, correction_of, correction_of_journaled, differing
from gateway.settings.metering import Outcome, Refund

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
NOT_SENT: Outcome = "connect_failure"
USED: Mapping[str, int] = {"tokens": 7}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_that_no_rule_names_leaves_the_charge(outcome: Outcome) -> None:
    others = tuple(other for other in OUTCOMES if other != outcome)
    assert correction_of(outcome, Refund(on=others)) == STAYS
    assert STAYS.may_stay


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_that_a_rule_names_gives_the_charge_back_whole(outcome: Outcome) -> None:
    correction = correction_of(outcome, Refund(on=(outcome,)))
    assert correction == GIVEN_BACK
    assert not correction.may_stay


@pytest.mark.parametrize("outcome", [outcome for outcome in OUTCOMES if outcome != NOT_SENT])
def test_a_cap_bounds_what_is_given_back_of_what_was_sent(outcome: Outcome) -> None:
    correction = correction_of(outcome, Refund(on=(outcome,), cap_per_period=3))
    assert correction.given_back
    assert correction.refunds_max == 3
    assert correction.may_stay, "beyond the cap it does"


def test_what_was_never_sent_is_given_back_without_a_cap() -> None:
    correction = correction_of(NOT_SENT, Refund(on=(NOT_SENT,), cap_per_period=0))
    assert correction == GIVEN_BACK
    assert not correction.may_stay


def test_an_answer_that_went_well_is_set_to_what_was_reported() -> None:
    correction = correction_of(None, Refund(on=OUTCOMES), USED)
    assert (correction.given_back, correction.units) == (False, USED)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_cut_answer_that_stays_charged_is_set_to_what_was_reported_by_then(outcome: Outcome) -> None:
    correction = correction_of(outcome, Refund(on=()), USED)
    assert (correction.given_back, correction.units) == (False, USED)


def test_what_may_be_given_back_no_more_becomes_what_was_reported() -> None:
    correction = correction_of("cut_answer", Refund(on=("cut_answer",), cap_per_period=1), USED)
    assert (correction.given_back, correction.refunds_max, correction.units) == (True, 1, USED)


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("cap", [None, 3])
def test_a_journaled_charge_is_given_back_only_where_no_cap_must_be_counted(outcome: Outcome, cap: int | None) -> None:
    correction = correction_of_journaled(outcome, Refund(on=OUTCOMES, cap_per_period=cap))
    assert correction == (GIVEN_BACK if cap is None or outcome == NOT_SENT else STAYS)
    assert correction_of_journaled(outcome, Refund(on=(), cap_per_period=cap)) == STAYS


def test_units_that_are_as_estimated_need_no_correction() -> None:
    assert differing({"tokens": 10, "api_calls": 1}, {"tokens": 4, "api_calls": 1, "seconds": 9}) == {"tokens": 10}
