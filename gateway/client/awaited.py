"""What a client's connection waits for, for how long, and what follows when it waits in vain. Pure."""

from typing import Protocol

from gateway.decision.refusals import RefusalAnswer
from gateway.http.deadlines import NEVER
from gateway.settings.clients import ClientTimeouts
from quota import problems


class AwaitedRequest(Protocol):
    """A request that has begun and not ended."""

    @property
    def head_complete(self) -> bool: ...


def awaited_seconds(timeouts: ClientTimeouts, receiving: AwaitedRequest | None, answering: bool) -> float:
    """How long the client has for what it is to send next; NEVER while nothing of it is awaited. `answering`: a request
    is being answered."""
    if receiving is not None:
        return timeouts.body_idle_seconds if receiving.head_complete else timeouts.head_seconds
    return NEVER if answering else timeouts.idle_seconds


def silence_refusal(receiving: AwaitedRequest) -> RefusalAnswer:
    detail = "The request body stopped arriving." if receiving.head_complete else "The request head took too long."
    return RefusalAnswer(problems.REQUEST_TIMEOUT, detail)
