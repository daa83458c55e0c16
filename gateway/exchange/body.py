"""The body of a request: it waits while the decision is pending, and is kept while the request may be sent again."""

BUFFER_MAX = 65_536  # of a body that waits, or is kept


class RequestBody:
    """What has come of it."""

    __slots__ = ("_kept", "_waiting", "client_held", "received_bytes", "waiting_bytes")

    def __init__(self) -> None:
        self.received_bytes = 0
        self.client_held = False
        """The body comes faster than it can go on, so that the client is read no further."""
        self._waiting: list[bytes] = []
        self.waiting_bytes = 0
        self._kept: list[bytes] | None = None

    def wait(self, data: bytes) -> bool:
        """Until there is a connection to send it on. Returns whether too much waits."""
        self._waiting.append(data)
        self.waiting_bytes += len(data)
        return self.waiting_bytes > BUFFER_MAX

    def pass_on(self, data: bytes) -> None:
        """It is sent as it comes."""
        if self._kept is not None:
            self._kept.append(data)
            if self.received_bytes > BUFFER_MAX:
                self._kept = None

    def take(self, *, keep: bool) -> list[bytes]:
        """What waits is sent. `keep`: the request may be sent again."""
        waiting, self._waiting = self._waiting, []
        self._kept = [*waiting] if keep and self.received_bytes <= BUFFER_MAX else None
        return waiting

    @property
    def kept(self) -> bool:
        """Whether all that was sent is still there."""
        return self._kept is not None

    def take_back(self) -> None:
        """What was sent is to be sent again."""
        if self._kept is not None:
            self._waiting, self._kept = self._kept, None

    def drop(self) -> None:
        """Nothing of it is sent any more."""
        self._waiting = []


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: list[bytes]) -> bytes:
    return b"0\r\n%b\r\n" % b"".join(trailers)
