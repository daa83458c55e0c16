"""The states of a client's connection: which can follow which."""

from itertools import product

import pytest

from common.transitions import ImpossibleTransition, after
from gateway.client.states import ENDED, PARSED, TRANSITIONS, ClientEvent, ClientState
from gateway.http.framing import Framing, request_framing
from gateway.http.head import RequestHead


def test_only_the_transitions_of_the_table_are_possible() -> None:
    for state, event in product(ClientState, ClientEvent):
        if (state, event) in TRANSITIONS:
            assert after(TRANSITIONS, state, event) is TRANSITIONS[state, event]
        else:
            with pytest.raises(ImpossibleTransition):
                after(TRANSITIONS, state, event)


def test_what_has_ended_is_never_answered_or_parsed_again() -> None:
    assert all(end in ENDED for (begin, _), end in TRANSITIONS.items() if begin in ENDED)
    assert not ENDED & PARSED


def test_what_is_no_longer_parsed_is_never_parsed_again() -> None:
    assert all(end not in PARSED for (begin, _), end in TRANSITIONS.items() if begin not in PARSED)


def test_each_state_but_the_last_ends_when_the_client_is_lost() -> None:
    lost = {begin for begin, event in TRANSITIONS if event is ClientEvent.LOST}
    assert lost == set(ClientState) - {ClientState.CLOSED}


def test_only_a_request_that_was_read_can_ask_for_a_tunnel() -> None:
    assert {begin for begin, event in TRANSITIONS if event is ClientEvent.UPGRADE_ASKED} == {ClientState.READING}


@pytest.mark.parametrize(
    ("codings", "chunked", "length", "is_11", "framing"),
    [
        (0, False, None, True, Framing.NONE),
        (0, False, 0, True, Framing.NONE),
        (0, False, 7, True, Framing.SIZED),
        (0, False, 7, False, Framing.SIZED),
        (1, True, None, True, Framing.CHUNKED),
        (1, True, 7, True, Framing.UNKNOWN),
        (1, True, None, False, Framing.UNKNOWN),
        (1, False, None, True, Framing.UNKNOWN),
        (2, True, None, True, Framing.UNKNOWN),
    ],
)
def test_a_body_ends_where_both_sides_agree_or_nowhere(
    codings: int, chunked: bool, length: int | None, is_11: bool, framing: Framing
) -> None:
    head = RequestHead()
    head.transfer_codings, head.chunked, head.content_length, head.is_11 = codings, chunked, length, is_11
    assert request_framing(head) is framing
