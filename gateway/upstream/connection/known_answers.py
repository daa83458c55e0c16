"""Heads of answers that were parsed before, to recognize them by their bytes: upstreams repeat themselves."""

from gateway.http.head import ANSWERS_MAX, AnswerHead


class KnownAnswers:
    """Those of one target."""

    __slots__ = ("_by_bytes", "last")

    def __init__(self) -> None:
        self.last: AnswerHead | None = None
        """The one that was found last. It is often the next, too."""
        self._by_bytes: dict[bytes, AnswerHead] = {}

    def find(self, data: bytes) -> AnswerHead | None:
        """The head that `data` begins with."""
        head = self.last = self._by_bytes.get(data[: data.find(b"\r\n\r\n") + 4])
        return head

    def learn(self, head: AnswerHead) -> None:
        if len(self._by_bytes) >= ANSWERS_MAX:
            self._by_bytes.clear()
        self._by_bytes[head.raw] = head

    def clear(self) -> None:
        self.last = None
        self._by_bytes.clear()
