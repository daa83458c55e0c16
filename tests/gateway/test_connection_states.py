"""What may happen to a connection to an upstream, and to the answer on it, is what the tables of events say."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TypeVar

import pytest

from gateway.upstream.connection import states
from gateway.upstream.connection.states import AnswerState, ConnectionState

State = TypeVar("State", bound=Enum)

CONNECTION_EVENTS: dict[str, Mapping[ConnectionState, ConnectionState]] = {
    "connected": states.CONNECTED,
    "request sent": states.REQUEST_SENT,
    "answer began": states.ANSWER_BEGAN,
    "answer ended": states.ANSWER_ENDED,
    "protocol switched": states.PROTOCOL_SWITCHED,
    "request left": states.REQUEST_LEFT,
    "connection lost": states.CONNECTION_LOST,
}
ANSWER_EVENTS: dict[str, Mapping[AnswerState, AnswerState]] = {
    "bytes read": states.BYTES_READ,
    "interim answer passed": states.INTERIM_PASSED,
    "head passed": states.HEAD_PASSED,
    "whole answer passed": states.WHOLE_PASSED,
    "more read": states.MORE_READ,
    "switch granted": states.SWITCH_GRANTED,
    "given up": states.GIVEN_UP,
    "forgotten": states.FORGOTTEN,
}


def reached(start: State, events: Iterable[Mapping[State, State]]) -> set[State]:
    seen, more, each = {start}, {start}, list(events)
    while more:
        more = {event[state] for event in each for state in more if state in event} - seen
        seen |= more
    return seen


def test_each_state_of_a_connection_can_be_reached_and_none_but_a_dial_lasts_for_ever() -> None:
    assert reached(ConnectionState.CONNECTING, CONNECTION_EVENTS.values()) == set(ConnectionState)
    for state in set(ConnectionState) - {ConnectionState.CONNECTING}:
        assert states.CONNECTION_LOST[state] is ConnectionState.CLOSED


def test_a_closed_connection_stays_closed() -> None:
    closed = ConnectionState.CLOSED
    assert {event[closed] for event in CONNECTION_EVENTS.values() if closed in event} == {closed}


@pytest.mark.parametrize("state", [state for state in ConnectionState if state is not ConnectionState.IDLE])
def test_a_request_is_sent_on_an_idle_connection_only(state: ConnectionState) -> None:
    with pytest.raises(KeyError):
        states.REQUEST_SENT[state]


@pytest.mark.parametrize("event", ["answer began", "answer ended", "protocol switched"])
@pytest.mark.parametrize(
    "state",
    [ConnectionState.CONNECTING, ConnectionState.IDLE, ConnectionState.SWITCHED, ConnectionState.CLOSED],
)
def test_only_a_connection_that_carries_a_request_has_an_answer(event: str, state: ConnectionState) -> None:
    assert state not in CONNECTION_EVENTS[event]


def test_each_state_of_an_answer_can_be_reached_and_left_for_the_next_request() -> None:
    assert reached(AnswerState.AWAITED, ANSWER_EVENTS.values()) == set(AnswerState)
    assert set(states.FORGOTTEN) == set(states.GIVEN_UP) == set(AnswerState)


def test_a_head_is_passed_on_once() -> None:
    """What follows it leads to no state from which a head, an interim one or a switch could follow."""
    events = [event for name, event in ANSWER_EVENTS.items() if name != "forgotten"]
    for state in states.HEAD_IS_PASSED:
        for after in reached(state, events):
            assert after not in states.HEAD_PASSED
            assert after not in states.INTERIM_PASSED
            assert after not in states.SWITCH_GRANTED
    assert {states.HEAD_PASSED[state] for state in states.HEAD_PASSED} <= states.HEAD_IS_PASSED


def test_what_is_behind_a_whole_answer_never_makes_it_whole_again() -> None:
    events = [event for name, event in ANSWER_EVENTS.items() if name not in ("forgotten", "given up")]
    assert reached(AnswerState.SURPLUS, events) == {AnswerState.SURPLUS}
