"""What a tunnel decides without its connections: its states, how much it takes for, and whom it tells that it ends."""

from itertools import product

import pytest

from common.transitions import ImpossibleTransition, after
from gateway.http import websocket
from gateway.tunnel.batches import CloseTunnel, LetPass, NextStep, TakeFewer, TakeLater, after_refusal, first_batch
from gateway.tunnel.closing import SILENT, ClosePlan, Ending, Unpaid, plan_close
from gateway.tunnel.states import TRANSITIONS, TunnelEvent, TunnelState
from quota.model import ConcurrencyLimited, Decision, NotInPlan, RateLimited, Unknown
from quota.periods import Period

MONTH = Period(0, 1)
REFUSED = NotInPlan("messages")
RATE_LIMITED = RateLimited(MONTH, 0, 250_000, 1.0, 1.0)


def test_a_tunnel_that_is_over_stays_so() -> None:
    for event in TunnelEvent:
        with pytest.raises(ImpossibleTransition):
            after(TRANSITIONS, TunnelState.OVER, event)


def test_only_the_transitions_of_the_table_are_possible() -> None:
    for state, event in product(TunnelState, TunnelEvent):
        if (state, event) in TRANSITIONS:
            assert after(TRANSITIONS, state, event) is TRANSITIONS[state, event]
        else:
            with pytest.raises(ImpossibleTransition):
                after(TRANSITIONS, state, event)


def test_a_tunnel_is_open_only_after_the_upstream_has_switched() -> None:
    reached_by = {event for (_, event), state in TRANSITIONS.items() if state is TunnelState.OPEN}
    assert reached_by == {TunnelEvent.SWITCHED}
    assert {state for (state, event) in TRANSITIONS if event is TunnelEvent.SWITCHED} == {TunnelState.ASKED}


@pytest.mark.parametrize(
    ("waiting", "items_max", "units_max", "batch"),
    [
        ([1, 1, 1], 3, 10, (3, 3)),
        ([1, 1, 1], 2, 10, (2, 2)),
        ([4, 4, 4], 3, 10, (2, 8)),
        ([0, 0, 1], 3, 1, (3, 1)),
        ([11, 1], 2, 10, (1, 11)),
    ],
    ids=["all", "as many as may be", "as many units as may be", "free ones", "at least one"],
)
def test_a_batch_is_the_most_that_one_take_may_charge(
    waiting: list[int], items_max: int, units_max: int, batch: tuple[int, int]
) -> None:
    assert first_batch(waiting, items_max, units_max) == batch


@pytest.mark.parametrize(
    ("decision", "items", "in_shadow", "step"),
    [
        (RATE_LIMITED, 4, False, TakeLater(0.25)),
        (RATE_LIMITED, 4, True, LetPass()),
        (ConcurrencyLimited(MONTH, 0, 1), 4, False, TakeLater(1.0)),
        (Unknown(lapsed=False), 4, True, LetPass()),
        (
            Unknown(lapsed=False),
            4,
            False,
            CloseTunnel(websocket.TRY_AGAIN_LATER, "the organization's plan is not known now"),
        ),
        (REFUSED, 5, False, TakeFewer(2)),
        (REFUSED, 5, True, TakeFewer(2)),
        (REFUSED, 1, True, LetPass()),
        (REFUSED, 1, False, CloseTunnel(websocket.POLICY_VIOLATION, "the quota does not allow more")),
    ],
)
def test_a_refused_batch_is_halved_until_one_item_is_refused(
    decision: Decision, items: int, in_shadow: bool, step: NextStep
) -> None:
    assert after_refusal(decision, items, in_shadow=in_shadow) == step


def frames(*, between: bool) -> websocket.Frames:
    """Of the upstream, for one; between two frames or within one."""
    read = websocket.Frames(masked=False)
    read.messages(b"\x81\x02ok" if between else b"\x81\x02o")
    return read


@pytest.mark.parametrize(
    ("code", "unpaid", "client_between", "upstream_between", "plan"),
    [
        (websocket.GOING_AWAY, Unpaid.NOTHING, True, True, ClosePlan(True, Ending.CLOSE_FRAME)),
        (websocket.GOING_AWAY, Unpaid.NOTHING, False, True, ClosePlan(False, Ending.CLOSE_FRAME)),
        (websocket.GOING_AWAY, Unpaid.NOTHING, True, False, ClosePlan(True, Ending.AFTER_FRAME)),
        (websocket.PROTOCOL_ERROR, Unpaid.NOTHING, True, False, ClosePlan(True, Ending.AT_ONCE)),
        (websocket.POLICY_VIOLATION, Unpaid.MESSAGES, False, True, ClosePlan(True, Ending.CLOSE_FRAME)),
        (websocket.POLICY_VIOLATION, Unpaid.BYTES, False, True, ClosePlan(False, Ending.CLOSE_FRAME)),
        (websocket.POLICY_VIOLATION, Unpaid.BYTES, True, False, ClosePlan(True, Ending.AT_ONCE)),
    ],
)
def test_a_close_is_never_put_into_a_frame(
    code: int, unpaid: Unpaid, client_between: bool, upstream_between: bool, plan: ClosePlan
) -> None:
    assert plan_close(code, unpaid, frames(between=client_between), frames(between=upstream_between)) == plan


def test_a_protocol_other_than_websocket_ends_without_a_word() -> None:
    assert plan_close(websocket.GOING_AWAY, Unpaid.BYTES, None, None) is SILENT
