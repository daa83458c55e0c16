"""The states of an action, and how it comes from one to the next."""

from enum import Enum
from typing import Final

from control.actions.failures import ActionOver


class ActionState(Enum):
    WAITING = "waiting"
    """For a second person."""
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"
    """By the person who asked for it."""
    UNDER_WAY = "under_way"
    """Stripe was asked. If it stays so, the process died meanwhile: look at Stripe."""
    DONE = "done"
    REFUSED = "refused"
    """By Stripe."""
    UNANSWERED = "unanswered"
    """By Stripe: it may be done."""
    UNDOING = "undoing"
    UNDONE = "undone"


class Event(Enum):
    APPROVE = "approved"
    DECLINE = "declined"
    WITHDRAW = "withdrawn"
    END = "done"
    REFUSE = "refused"
    MISS = "left unanswered"
    UNDO = "undone"
    END_UNDO = "undone for good"
    FAIL_UNDO = "kept"


S = ActionState
TRANSITIONS: Final = {
    (S.WAITING, Event.APPROVE): S.UNDER_WAY,
    (S.WAITING, Event.DECLINE): S.DECLINED,
    (S.WAITING, Event.WITHDRAW): S.WITHDRAWN,
    (S.UNDER_WAY, Event.END): S.DONE,
    (S.UNDER_WAY, Event.REFUSE): S.REFUSED,
    (S.UNDER_WAY, Event.MISS): S.UNANSWERED,
    (S.DONE, Event.UNDO): S.UNDOING,
    (S.UNDOING, Event.END_UNDO): S.UNDONE,
    (S.UNDOING, Event.FAIL_UNDO): S.DONE,
}

_WORDS: Final = {S.UNDER_WAY: "under way", S.UNDOING: "being undone"}


def state_after(state: ActionState, event: Event) -> ActionState:
    """Raises ActionOver."""
    after = TRANSITIONS.get((state, event))
    if after is None:
        word = _WORDS.get(state, state.value)
        what = f"is {word} already" if word == event.value else f"is {word}, and cannot be {event.value}"
        raise ActionOver(f"The action {what}.")
    return after
