"""A refused request and a refused usage record are told alike: client code need not know which plane answered."""

import pytest

from control.usage import outcomes
from control.usage.records import UsageRecord
from gateway.decision import refusals
from quota.model import Decision, Exhausted, MeterBalance, NotEntitled, NotInPlan, Status, Unknown
from quota.periods import Period

PERIOD, NOW_US = Period(1_000, 2_000), 1_500_250_000
BALANCE = MeterBalance("api_calls", 100, 3, 0)


@pytest.mark.parametrize(
    "decision",
    [
        Exhausted(PERIOD, NOW_US, BALANCE, over_limit=False),
        Exhausted(PERIOD, NOW_US, BALANCE, over_limit=True),
        NotEntitled(Status.SUSPENDED),
        NotInPlan("api_calls"),
        Unknown(lapsed=True),
    ],
)
def test_both_planes_tell_a_refusal_by_the_same_problem_members_and_fields(decision: Decision) -> None:
    record = UsageRecord(meter="api_calls", units=7, idempotency_key="k")
    by_control, by_gateway = outcomes.refused(decision, record), refusals.of_decision(decision, {"api_calls": 7}, None)
    assert by_control.problem == by_gateway.problem
    assert by_control.detail.removeprefix("The record has") == by_gateway.detail.removeprefix("The request costs")
    assert dict(by_control.members) == dict(by_gateway.extensions or {})
    lines = [line.split(": ", 1) for line in by_gateway.fields.decode().splitlines()]
    assert dict(by_control.headers) == dict(lines)
