"""The body of a request whose Upgrade is ignored: llhttp takes the head of such a request for all of it."""

from typing import Protocol

import httptools

from gateway.http.framing import Framing


class BodyReader(Protocol):
    def on_message_begin(self) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_body_complete(self) -> None: ...


class _Body:
    """What llhttp calls for a body that it is given without the head."""

    def __init__(self, reader: BodyReader) -> None:
        self._reader = reader
        self._begun = False

    def on_message_begin(self) -> None:
        if self._begun:
            self._reader.on_message_begin()  # where none may begin

    def on_headers_complete(self) -> None:
        self._begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._begun:  # a trailer
            self._reader.on_header(name, value)

    def on_body(self, data: bytes) -> None:
        self._reader.on_body(data)

    def on_message_complete(self) -> None:
        self._reader.on_body_complete()


def body_parser(reader: BodyReader, framing: Framing, length: int) -> httptools.HttpRequestParser:
    """A parser that is given the framing that the head has, and the body next. `length`: of a sized one."""
    field = b"Transfer-Encoding: chunked" if framing is Framing.CHUNKED else b"Content-Length: %d" % length
    parser = httptools.HttpRequestParser(_Body(reader))
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: body\r\n%b\r\n\r\n" % field)
    return parser
