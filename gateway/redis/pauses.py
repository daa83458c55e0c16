"""Why a link sends no takes. Several reasons can hold at once, and takes are sent when none is left."""

from enum import Enum
from typing import Protocol

from common.redis_server import Refused
from gateway.redis.connection import Connection


class Pause(Enum):
    """In the order in which `/-/ready` names them. Clients can read the values: no address is in them."""

    REFUSED = "redis refuses takes"  # the refusal itself has a better text
    AWAY = "redis is away"
    LEVEL_NOT_KEPT = "redis does not keep the durability level"
    ASKING = "whether redis is the one to believe is being asked"
    UNWRITTEN = "what was charged is not written in time"
    REBUILDING = "what redis has lost is being put back"
    SLOW = "redis answers too slowly"


class Pauses:
    __slots__ = ("_current", "reason", "refused")

    def __init__(self) -> None:
        self._current = {Pause.AWAY}
        self.reason = "not connected yet"
        """Of the pause that began last, for the log."""
        self.refused: Refused | None = None
        """What Redis answers instead of taking, while it does."""

    def __bool__(self) -> bool:
        return bool(self._current)

    def __contains__(self, pause: Pause) -> bool:
        return pause in self._current

    @property
    def fault(self) -> str | None:
        """What `/-/ready` says; None while takes are sent."""
        if self.refused is not None:
            return self.refused.fault
        return next((pause.value for pause in Pause if pause in self._current), None)

    def begin(self, pause: Pause, reason: str) -> None:
        self._current.add(pause)
        self.reason = reason

    def end(self, *pauses: Pause) -> None:
        self._current.difference_update(pauses)
        if Pause.REFUSED not in self._current:
            self.refused = None

    def refuse(self, refused: Refused, reason: str) -> None:
        self.refused = refused
        self.begin(Pause.REFUSED, reason)


class PausableLink(Protocol):
    """A link as those see it who know a reason to send no takes."""

    @property
    def connection(self) -> Connection | None: ...
    @property
    def pauses(self) -> Pauses: ...
    def pause(self, pause: Pause, reason: str) -> None: ...
    def resume(self, pause: Pause) -> None:
        """Takes are sent again, unless there is another pause."""
