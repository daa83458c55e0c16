"""What a connection to an upstream does, and how far the answer on it is. Each event is a table: the states that it may
happen in, and the state that follows.

A state that is not in an event's table is a fault of this program: KeyError, before anything is sent or passed on.
"""

from enum import Enum, auto
from typing import Final


class ConnectionState(Enum):
    CONNECTING = auto()
    """Whoever dials waits for it, and hears of its end."""
    IDLE = auto()
    """It carries no request. It may take one, or its transport closes."""
    SENT = auto()
    """It carries a request, and no byte of an answer has come."""
    ANSWERING = auto()
    """It carries a request, and some of the answer has come."""
    SWITCHED = auto()
    """It is one side of a tunnel."""
    CLOSED = auto()
    """It is over, or about to be. It carries nothing any more."""

    __hash__ = object.__hash__  # Enum's own hashes the name, in Python, at each look-up in a table


_C = ConnectionState
_Connection = dict[ConnectionState, ConnectionState]

CONNECTED: Final[_Connection] = {_C.CONNECTING: _C.IDLE}
REQUEST_SENT: Final[_Connection] = {_C.IDLE: _C.SENT}
ANSWER_BEGAN: Final[_Connection] = {_C.SENT: _C.ANSWERING}
ANSWER_ENDED: Final[_Connection] = {
    _C.SENT: _C.IDLE,  # the whole answer came in one read, and was recognized
    _C.ANSWERING: _C.IDLE,
}
PROTOCOL_SWITCHED: Final[_Connection] = {_C.ANSWERING: _C.SWITCHED}
REQUEST_LEFT: Final[_Connection] = {  # it failed, was abandoned, or goes on elsewhere
    _C.SENT: _C.CLOSED,
    _C.ANSWERING: _C.CLOSED,
    _C.CLOSED: _C.CLOSED,  # the end of the connection is why
}
CONNECTION_LOST: Final[_Connection] = {state: _C.CLOSED for state in _C if state is not _C.CONNECTING}


class AnswerState(Enum):
    AWAITED = auto()
    """Nothing of it was read."""
    BEGUN = auto()
    """Some of it was read, and nothing of it can be passed on yet."""
    INTERIM = auto()
    """An interim answer was passed on. The final one is still awaited."""
    BODY = auto()
    """The head was passed on. The body follows."""
    COMPLETE = auto()
    """All of it was passed on."""
    SURPLUS = auto()
    """It was complete, and there was more."""
    SWITCHING = auto()
    """It is a 101 that grants what the request asks for."""
    UNWANTED = auto()
    """Nobody waits for the rest of it."""

    __hash__ = object.__hash__  # as above


_A = AnswerState
_Answer = dict[AnswerState, AnswerState]

BYTES_READ: Final[_Answer] = {_A.AWAITED: _A.BEGUN}
INTERIM_PASSED: Final[_Answer] = {_A.BEGUN: _A.INTERIM, _A.INTERIM: _A.INTERIM}
HEAD_PASSED: Final[_Answer] = {_A.BEGUN: _A.BODY, _A.INTERIM: _A.BODY}
WHOLE_PASSED: Final[_Answer] = {_A.BODY: _A.COMPLETE}
MORE_READ: Final[_Answer] = {_A.COMPLETE: _A.SURPLUS, _A.SURPLUS: _A.SURPLUS}
SWITCH_GRANTED: Final[_Answer] = {_A.BEGUN: _A.SWITCHING, _A.INTERIM: _A.SWITCHING}
GIVEN_UP: Final[_Answer] = dict.fromkeys(_A, _A.UNWANTED)
FORGOTTEN: Final[_Answer] = dict.fromkeys(_A, _A.AWAITED)

HEAD_IS_PASSED: Final = frozenset((_A.BODY, _A.COMPLETE, _A.SURPLUS))

# Up to Python 3.11 a look-up of a member in its class is a call, so these are for code that runs for each read.
CONNECTING: Final = _C.CONNECTING
SENT: Final = _C.SENT
AWAITED: Final = _A.AWAITED
BEGUN: Final = _A.BEGUN
INTERIM: Final = _A.INTERIM
BODY: Final = _A.BODY
COMPLETE: Final = _A.COMPLETE
SURPLUS: Final = _A.SURPLUS
SWITCHING: Final = _A.SWITCHING
UNWANTED: Final = _A.UNWANTED
