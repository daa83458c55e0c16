"""Takes that were sent, until each has its reply."""

from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

import structlog

from gateway.redis.connection import Callback, Connection, Lost
from quota.calls.call import Call
from quota.calls.encoded import BOOKS_KEYS, TAKES_MAX, Batch, by_digest, by_text, join_takes, take_by_digest

log = structlog.get_logger()


class TakeWaiter(Protocol):
    def on_take(self, reply: bytes) -> None: ...
    def on_take_lost(self, lost: Lost) -> None: ...


Take = tuple[bytes, bytes, int, TakeWaiter, int]
"""RESP words of its KEYS and ARGV, the number of ARGV, the waiter, the number of KEYS."""
Read = tuple[bytes, int, Callback]
"""Ready commands that change nothing and are about one shard, how many they are, and who gets the list of replies."""


def parts_of(batch: list[Take]) -> list[list[Take]]:
    """Takes by script calls."""
    if len(batch) <= TAKES_MAX:
        return [batch] if batch else []
    return [batch[at : at + TAKES_MAX] for at in range(0, len(batch), TAKES_MAX)]


def encoded(takes: list[Take], *, keyed: bool = True) -> Batch:
    """Those of one script call. `keyed`: one of them may have more than two keys."""
    return join_takes(
        [take[0] for take in takes],
        sum([take[4] for take in takes]) if keyed else BOOKS_KEYS * len(takes),
        [take[1] for take in takes],
        sum([take[2] for take in takes]),
    )


def script_call(takes: list[Take]) -> bytes:
    """As it is sent to a server that knows the script. It is made without a detour for one take alone."""
    if len(takes) > 1:
        return encoded(takes).by_digest()
    keys_bulk, argv_bulk, argv_count, _, key_count = takes[0]
    return take_by_digest(keys_bulk, key_count, argv_bulk, argv_count)


def run_script(send: Callable[[bytes, Callback], None], call: Call, callback: Callback) -> None:
    """Runs a script by its digest, or by its text where Redis does not know it any more."""

    def on_reply(reply: Any) -> None:
        if isinstance(reply, Lost) and str(reply).startswith("NOSCRIPT"):
            send(by_text(call), callback)
        else:
            callback(reply)

    send(by_digest(call), on_reply)


class TakeSender(Protocol):
    """The link that has sent the takes."""

    def hold(self, sent: "SentTakes", replies: list[Any]) -> bool:
        """Whether the takes are answered later, by `answer`."""

    def count(self, sent: "SentTakes", replies: list[Any], now: float) -> None:
        """The takes are answered now, in monotonic seconds."""

    def send_with_text(self, sent: "SentTakes") -> None:
        """Redis does not know the script, so nothing ran."""

    def turn_away(self, take: Take, reason: str) -> None:
        """The take was not applied."""

    def refuse(self, connection: Connection, error: str) -> bool:
        """Whether the error in place of one reply means that Redis cannot take now."""


class SentTakes:
    """The callback of one script call, or stands for several that were answered. Replies come in the order of takes."""

    __slots__ = ("calls", "connection", "sender", "sent_at", "takes", "with_text")

    def __init__(
        self, sender: TakeSender, connection: Connection, takes: list[Take], sent_at: float, calls: int = 1
    ) -> None:
        """`sent_at`: in monotonic seconds. `calls`: script calls in which the takes went."""
        self.sender = sender
        self.connection = connection
        self.takes = takes
        self.with_text = False
        """The script's text was sent, too."""
        self.sent_at = sent_at
        self.calls = calls

    def __call__(self, reply: Any) -> None:
        if type(reply) is list:
            if not self.sender.hold(self, reply):
                self.answer(reply)
        elif str(reply).startswith("NOSCRIPT") and not self.with_text:
            self.sender.send_with_text(self)
        else:
            self._lose(reply)

    def answer(self, replies: list[Any]) -> None:
        """Each reply is that of the script, an error of Redis, or Lost."""
        self.sender.count(self, replies, monotonic())
        for take, reply in zip(self.takes, replies, strict=True):
            if type(reply) is bytes:
                take[3].on_take(reply)
            else:
                self._fail(take, reply)

    def _lose(self, lost: Lost) -> None:
        for take in self.takes:
            if lost.applied is False:
                self.sender.turn_away(take, str(lost))
            else:
                take[3].on_take_lost(lost)

    def _fail(self, take: Take, error: Any) -> None:
        """An error in place of one reply. Nothing of that take was charged, if it is Redis' own."""
        if isinstance(error, Lost):
            take[3].on_take_lost(error)
        elif self.sender.refuse(self.connection, str(error)):
            self.sender.turn_away(take, str(error))
        else:
            log.error("take failed", reason=str(error))
            take[3].on_take_lost(Lost(str(error)))


class SentTurn:
    """The callback of all script calls of one turn, where each has the takes of one shard. When the last reply is
    there, all takes are answered as those of one call are: a reply for each call would be counted, kept and answered
    on its own otherwise, and on a Cluster most calls have one take."""

    __slots__ = ("_calls", "_connection", "_replies", "_sender", "_sent_at")

    def __init__(self, sender: TakeSender, connection: Connection, calls: list[list[Take]], sent_at: float) -> None:
        self._sender = sender
        self._connection = connection
        self._calls = calls
        self._replies: list[Any] = []
        self._sent_at = sent_at

    def __call__(self, reply: Any) -> None:
        self._replies.append(reply)
        if len(self._replies) == len(self._calls):
            self._answer()

    def _answer(self) -> None:
        takes: list[Take] = []
        answers: list[Any] = []
        refused: list[tuple[list[Take], Any]] = []
        for call, reply in zip(self._calls, self._replies, strict=True):
            if type(reply) is list:
                takes += call
                answers += reply
            else:
                refused.append((call, reply))
        if takes:
            calls = len(self._calls) - len(refused)
            SentTakes(self._sender, self._connection, takes, self._sent_at, calls)(answers)
        for call, reply in refused:
            SentTakes(self._sender, self._connection, call, self._sent_at)(reply)
