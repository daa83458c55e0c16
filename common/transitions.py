"""A state that changes by a table: which event leads from which state to which."""

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

State = TypeVar("State", bound=Enum)
Event = TypeVar("Event", bound=Enum)


class ImpossibleTransition(Exception):
    """The event cannot happen in that state: the program has a fault."""


def after(transitions: Mapping[tuple[State, Event], State], state: State, event: Event) -> State:
    """The state that follows. Raises ImpossibleTransition."""
    try:
        return transitions[state, event]
    except KeyError:
        raise ImpossibleTransition(f"{event} in {state}") from None
