"""Heads of answers: recognized by their bytes, since upstreams repeat themselves, or read by their lines."""

from gateway.http.head import ANSWERS_MAX, AnswerHead
from gateway.upstream.connection.answer_reader import AnswerReader


class KnownAnswers:
    """Those of one target."""

    __slots__ = ("_by_bytes", "last", "reader")

    def __init__(self, reader: AnswerReader) -> None:
        self.reader = reader
        self.last: AnswerHead | None = None
        """The one that was found last. It is often the next, too."""
        self._by_bytes: dict[bytes, AnswerHead] = {}

    def find(self, data: bytes) -> AnswerHead | None:
        """The head that `data` begins with. None: the parser is to judge it."""
        head = self._by_bytes.get(data[: data.find(b"\r\n\r\n") + 4])
        if head is None:
            head = self.reader.read(data)
            if head is not None:
                self.learn(head)
        self.last = head
        return head

    def learn(self, head: AnswerHead) -> None:
        if len(self._by_bytes) >= ANSWERS_MAX:
            self._by_bytes.clear()
        self._by_bytes[head.raw] = head

    def clear(self) -> None:
        self.last = None
        self._by_bytes.clear()
