"""What becomes of a client's connection. Pure.

One value says whether requests are read, whether they are answered, and what is done with the bytes that come.
"""

from enum import Enum, auto
from typing import Final


class ClientState(Enum):
    NEW = auto()
    """No request was read."""
    READING = auto()
    """Requests are read, and answered in order."""
    FINISHING = auto()
    """What the client sends is no request, so nothing more is parsed. What was read before is answered."""
    UPGRADING = auto()
    """The last request asks for a tunnel. What the client sends behind it is the tunnel's."""
    LINGERING = auto()
    """The last answer is written. What the client still sends is dropped, so that it can read that answer."""
    CLOSING = auto()
    """What was written is still on its way to the client."""
    CLOSED = auto()


class ClientEvent(Enum):
    FIRST_REQUEST = auto()
    UNREADABLE = auto()
    """Where the next request begins is not known."""
    UPGRADE_ASKED = auto()
    """A route offers the protocol that a request asks for."""
    ENDED = auto()
    """The gateway ends the connection, and has read all that came."""
    ENDED_UNREAD = auto()
    """The gateway ends the connection, and the client may still be sending."""
    LOST = auto()


TRANSITIONS: Final = {
    (ClientState.NEW, ClientEvent.FIRST_REQUEST): ClientState.READING,
    (ClientState.NEW, ClientEvent.UNREADABLE): ClientState.FINISHING,
    (ClientState.READING, ClientEvent.UNREADABLE): ClientState.FINISHING,
    (ClientState.READING, ClientEvent.UPGRADE_ASKED): ClientState.UPGRADING,
    (ClientState.NEW, ClientEvent.ENDED): ClientState.CLOSING,
    (ClientState.READING, ClientEvent.ENDED): ClientState.CLOSING,
    (ClientState.FINISHING, ClientEvent.ENDED): ClientState.CLOSING,
    (ClientState.UPGRADING, ClientEvent.ENDED): ClientState.CLOSING,
    (ClientState.NEW, ClientEvent.ENDED_UNREAD): ClientState.LINGERING,
    (ClientState.READING, ClientEvent.ENDED_UNREAD): ClientState.LINGERING,
    (ClientState.FINISHING, ClientEvent.ENDED_UNREAD): ClientState.LINGERING,
    (ClientState.UPGRADING, ClientEvent.ENDED_UNREAD): ClientState.LINGERING,
    (ClientState.NEW, ClientEvent.LOST): ClientState.CLOSED,
    (ClientState.READING, ClientEvent.LOST): ClientState.CLOSED,
    (ClientState.FINISHING, ClientEvent.LOST): ClientState.CLOSED,
    (ClientState.UPGRADING, ClientEvent.LOST): ClientState.CLOSED,
    (ClientState.LINGERING, ClientEvent.LOST): ClientState.CLOSED,
    (ClientState.CLOSING, ClientEvent.LOST): ClientState.CLOSED,
}

PARSED: Final = frozenset({ClientState.NEW, ClientState.READING})
"""What the client sends is parsed."""
ENDED: Final = frozenset({ClientState.LINGERING, ClientState.CLOSING, ClientState.CLOSED})
"""Nothing more is answered."""
