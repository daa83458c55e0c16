"""The decisions, over everything that can be shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.transitions import ImpossibleTransition
from control.access.activation.refresh_tokens import Standing
from control.access.activation.rules import (
    ActivationStep,
    Asked,
    RefreshStep,
    Shown,
    SiteEvent,
    SiteKind,
    SiteState,
    activation_step,
    refresh_step,
    state_after,
)

SHOWN = st.builds(
    Shown,
    standing=st.sampled_from([Standing.CURRENT, Standing.REPEATED, Standing.REUSED]),
    kind=st.sampled_from(SiteKind),
    at_own_domain=st.booleans(),
    at_former_domain=st.booleans(),
    counted=st.booleans(),
    same_key_there=st.booleans(),
    other_key_there=st.booleans(),
    seat_free=st.booleans(),
    displaced=st.booleans(),
)
ASKED = st.builds(Asked, *[st.booleans()] * 8)


@given(SHOWN)
def test_only_the_current_token_moves_the_chain_on_and_only_at_home_it_revokes(shown: Shown) -> None:
    step = refresh_step(shown)
    if step in (RefreshStep.ROTATE, RefreshStep.MOVE):
        assert shown.standing is Standing.CURRENT
        assert not shown.displaced
    if step is RefreshStep.REVOKE:
        assert shown.at_own_domain
        assert shown.standing is Standing.REUSED or shown.displaced
    if shown.at_own_domain and shown.standing is Standing.REUSED and not shown.displaced:
        assert step is RefreshStep.REVOKE


@given(SHOWN)
def test_another_domain_never_takes_a_seat_that_is_not_the_sites_own_or_free(shown: Shown) -> None:
    if refresh_step(shown) is RefreshStep.MOVE and shown.counted:
        assert shown.kind is SiteKind.PRODUCTION or shown.seat_free


@given(SHOWN)
def test_a_live_site_never_moves_to_a_domain_for_development(shown: Shown) -> None:
    if shown.kind is SiteKind.PRODUCTION and not shown.counted:
        assert refresh_step(shown) is not RefreshStep.MOVE


@given(ASKED)
def test_a_new_site_at_a_domain_that_counts_needs_a_free_seat(asked: Asked) -> None:
    if activation_step(asked) is ActivationStep.NEW:
        assert not asked.known
        assert asked.seat_free or not asked.counted


@given(ASKED)
def test_nobody_takes_a_site_from_whoever_has_just_activated_it_by_the_same_code(asked: Asked) -> None:
    if asked.known and asked.same_code and asked.just_activated and not asked.same_key:
        assert activation_step(asked) is ActivationStep.REFUSE


@pytest.mark.parametrize("event", SiteEvent)
def test_no_event_leads_back_to_an_active_site(event: SiteEvent) -> None:
    for state in SiteState:
        try:
            assert state_after(state, event) is not SiteState.ACTIVE
        except ImpossibleTransition:
            assert state is not SiteState.ACTIVE
