"""Requests are read out of a client's bytes. This says where each begins and whether it may.

A head that is whole in one read is read by its lines (`head_reader.py`), and its body is counted. Where that does not
do, llhttp parses. Of a request that is one whole read, the header section is kept: the connection recognizes it when it
comes again.
"""

from typing import Generic, Protocol, TypeVar

import httptools
import structlog

from gateway.client.body_parser import body_parser
from gateway.client.head_reader import HeadReader
from gateway.client.request_fields import is_too_large, read_special_field, read_trailer
from gateway.http import headers
from gateway.http.boundaries import BadRequestLine, Boundaries, UnknownMethod
from gateway.http.framing import Framing, request_framing
from gateway.http.head import REQUEST_LINE, SECTION_BYTES_MAX, RequestHead
from gateway.http.headers import classify_request
from gateway.settings.clients import Limits
from quota import problems

log = structlog.get_logger()

HEAD_BYTES_SMALL, HEADER_FIELDS_FEW = 1024, 8  # the settings allow no limits below these
BODY_BYTES_SMALL = 65_536  # one that came with its head is handed on before its turn
NO_TUNNEL = "This gateway opens no tunnel to elsewhere: CONNECT is not served here."
AMBIGUOUS_AUTHORIZATION = b"Bearer"  # refused as a malformed request


class ReceivedRequest(Protocol):
    """A request that is being read."""

    method: bytes
    raw_target: bytes
    head_complete: bool
    request_complete: bool

    @property
    def head(self) -> RequestHead: ...
    @property
    def body_bytes(self) -> int: ...
    def on_request_body(self, data: bytes) -> None: ...


Request = TypeVar("Request", bound=ReceivedRequest)


class RequestOwner(Protocol[Request]):
    """The connection whose bytes are read."""

    def begin_request(self, head: RequestHead) -> Request: ...
    def grant_upgrade(self, request: Request) -> bool:
        """Whether all that follows this head is for a tunnel. Else the request is one like any other."""
        ...

    def on_request_head(self, request: Request) -> None: ...
    def on_body_read(self) -> None: ...
    def on_request_end(self, request: Request) -> None: ...
    def on_unreadable(self, problem: problems.Problem, detail: str) -> None:
        """The bytes are no request, so nothing that follows them can be trusted to be one. It stops the reader."""

    def on_unknown_end(self) -> None:
        """Nobody knows where the body of the last request ends. It stops the reader."""

    def on_unparsed(self, data: bytes) -> None:
        """What came behind the end of what is parsed."""

    def learn_section(self, head: RequestHead, section: bytes) -> None:
        """A header section, from the CRLF before it, that means `head` whenever it comes again as the end of a read."""

    def forget_section(self) -> None: ...


class RequestReader(Generic[Request]):
    __slots__ = (
        "_body_left",
        "_body_parser",
        "_body_seen",
        "_boundaries",
        "_head_read",
        "_heads",
        "_last",
        "_learn",
        "_limits",
        "_offered",
        "_owner",
        "_parser",
        "_read_bytes",
        "_stopped",
        "_trusted",
        "_upgraded",
        "receiving",
    )

    def __init__(
        self,
        owner: RequestOwner[Request],
        heads: HeadReader,
        limits: Limits,
        offered: frozenset[bytes],
        trusted: bool,
    ) -> None:
        """`offered`: the protocols that some route offers. `trusted`: whether what this peer says of its clients is
        believed."""
        self.receiving: Request | None = None
        """The request that has begun and not ended."""
        self._owner = owner
        self._heads = heads
        self._limits = limits
        self._offered = offered
        self._trusted = trusted
        self._parser: httptools.HttpRequestParser | None = None  # until it is needed
        self._boundaries = Boundaries()
        self._body_left = 0
        """Of the body of a request whose head was read by its lines."""
        self._last = False  # llhttp takes no request behind the one that it read
        self._body_parser: httptools.HttpRequestParser | None = None
        """Of the request under way, if its Upgrade is ignored and a body follows."""
        self._learn: RequestHead | None = None  # parsed in this read, and fit to be recognized
        self._read_bytes = 0  # of the read that is being parsed
        self._head_read = 0  # of an unfinished head, or of chunk extensions and trailers, in the reads before
        self._body_seen = 0
        self._stopped = False
        self._upgraded = False

    def stop(self) -> None:
        """Nothing more is parsed, of this read neither."""
        self._stopped = True

    def feed(self, data: bytes) -> None:
        at, boundaries = 0, self._boundaries
        while at < len(data) and not self._stopped:
            if self._body_left:
                at = self._read_body(data, at)
                continue
            if boundaries.between and self.receiving is None and not self._last:
                end = self._read_whole_head(data, at)
                if end > at:
                    at = end
                    continue
            try:
                end = boundaries.next_part(data, at, self.receiving)
            except BadRequestLine:
                detail = "The request line is not a method, a target and HTTP/1.1, with one blank between them."
                self._owner.on_unreadable(problems.BAD_REQUEST, detail)
                return
            except UnknownMethod:
                # RFC 9110 section 9.1. What the method means is not known, so nothing behind it is read as a request.
                self._owner.on_unreadable(problems.NOT_IMPLEMENTED, "The gateway does not know the request method.")
                return
            if not boundaries.withholding:
                self._parse(data[at:end])
            elif boundaries.line_bytes > self._limits.head_bytes_max:
                self._head_too_large()
            at = end
        if at < len(data):
            self._owner.on_unparsed(data[at:])
        if boundaries.begun:
            self._owner.forget_section()  # what comes next is the rest of a request

    def _read_whole_head(self, data: bytes, at: int) -> int:
        """Reads the head that begins at `at`, and the body if that is whole, too. Returns where what follows begins, or
        `at` for what is the parser's."""
        blank_line, limits = data.find(b"\r\n\r\n", at), self._limits
        if blank_line < 0 or blank_line - at > limits.head_bytes_max:
            return at
        read = self._heads.read(data, at, blank_line + 2, limits.header_fields_max, self._trusted)
        if read is None:
            return at
        method, target, head = read
        owner, end = self._owner, blank_line + 4
        request = owner.begin_request(head)
        request.method, request.raw_target = method, target
        request.head_complete = True
        length = head.content_length
        if not length:
            request.request_complete = True
            if at == 0 and end == len(data) and length is None:
                section = len(method) + len(target) + 10  # the CRLF before it
                if end - section <= SECTION_BYTES_MAX:
                    owner.learn_section(head, data[section:])
            owner.on_request_head(request)
            return end
        if length <= min(len(data) - end, BODY_BYTES_SMALL):
            request.on_request_body(data[end : end + length])
            request.request_complete = True
            owner.on_request_head(request)
            return end + length
        self.receiving, self._body_left = request, length
        owner.on_request_head(request)
        if not self._stopped:
            owner.on_body_read()
        return end

    def _read_body(self, data: bytes, at: int) -> int:
        """Returns where what follows it begins."""
        part = data[at : at + self._body_left]
        self._body_left -= len(part)
        request = self.receiving
        if request is not None:
            request.on_request_body(part)
        if self._body_left:
            if not self._stopped:
                self._owner.on_body_read()
        else:
            request, self.receiving = self.receiving, None
            if request is not None and not self._stopped:
                self._owner.on_request_end(request)
        return at + len(part)

    def _parse(self, part: bytes) -> None:
        """Bytes of one request."""
        self._read_bytes = len(part)
        between = self.receiving is None  # a request begins here
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        parser = self._parser if self._body_parser is None else self._body_parser
        try:
            parser.feed_data(part)
        except httptools.HttpParserUpgrade as e:
            if self._upgraded:
                self._stopped = True
                if e.args[0] < len(part):
                    self._owner.on_unparsed(part[e.args[0] :])
                return
            if e.args[0] != len(part):
                self._owner.on_unreadable(problems.BAD_REQUEST, "The request has no end.")
                return
            # The Upgrade is ignored, and llhttp goes on with the next request.
        except httptools.HttpParserCallbackError as e:
            log.error("a request failed inside the gateway", exc_info=e.__context__)
            self._owner.on_unreadable(problems.INTERNAL, "The gateway failed on this request.")
            return
        except httptools.HttpParserError as e:
            self._owner.on_unreadable(problems.BAD_REQUEST, f"The request is not valid HTTP: {e}.")
            return
        if self.receiving is not None and not self._stopped:
            self._after_read(self.receiving, len(part))
        if self._learn is not None:
            self._learn_section(self._learn, part, between)

    def _learn_section(self, head: RequestHead, data: bytes, between: bool) -> None:
        """Keeps the header section of a request that was one whole read. In a read that began with the end of another
        request's body, that body's lines would pass for fields."""
        self._learn = None
        end = data.find(b"\r\n")
        whole = between and self.receiving is None and data.find(b"\r\n\r\n") == len(data) - 4
        if whole and len(data) - end <= SECTION_BYTES_MAX and REQUEST_LINE.fullmatch(data, 0, end):
            self._owner.learn_section(head, data[end:])

    def _after_read(self, receiving: Request, byte_count: int) -> None:
        if receiving.head_complete:
            if receiving.head.has_body:
                self._owner.on_body_read()
            if not receiving.head.chunked or self._body_seen != receiving.body_bytes:
                self._body_seen, self._head_read = receiving.body_bytes, 0
                return
        # llhttp holds back an unfinished field, chunk extensions and trailers: their bytes are counted as they come.
        self._head_read += byte_count
        if self._head_read > self._limits.head_bytes_max:
            self._head_too_large()

    def _head_too_large(self) -> None:
        limits = self._limits
        bounds = f"{limits.head_bytes_max} bytes or {limits.header_fields_max} fields"
        self._owner.on_unreadable(problems.HEADERS_TOO_LARGE, f"The request head exceeds the limit of {bounds}.")

    # llhttp: one request after the other

    def on_message_begin(self) -> None:
        if self._stopped:
            return
        if not self._boundaries.expected:
            self._owner.on_unreadable(problems.BAD_REQUEST, "A request begins where none may begin.")
            return
        self._head_read = 0
        self.receiving = self._owner.begin_request(RequestHead())

    def on_url(self, url: bytes) -> None:
        request = self.receiving
        if request is not None:
            request.raw_target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self.receiving
        if request is None or self._stopped:
            return
        head = request.head
        if request.head_complete:
            self._on_trailer(head, name, value)
            return
        kind = classify_request(name)
        if not kind:  # FORWARD
            head.fields.append(b"%b: %b\r\n" % (name, value))
        elif kind == headers.AUTHORIZATION:
            # Two of them: which one counts is not for us to choose, so none does.
            head.authorization = value if head.authorization is None else AMBIGUOUS_AUTHORIZATION
            head.fields.append(b"%b: %b\r\n" % (name, value))
        elif kind == headers.HOST:
            head.hosts.append(value)
        elif kind == headers.TRACEPARENT:
            head.add_traceparent(value)
            head.fields.append(b"%b: %b\r\n" % (name, value))
        else:
            read_special_field(head, kind, name, value, self._trusted)

    def _on_trailer(self, head: RequestHead, name: bytes, value: bytes) -> None:
        read_trailer(head, name, value)
        limits = self._limits
        if head.trailer_fields > limits.header_fields_max or head.trailer_bytes > limits.head_bytes_max:
            self._head_too_large()

    def on_headers_complete(self) -> None:
        request = self.receiving
        parser = self._parser
        if request is None or parser is None or self._stopped:
            return
        head = request.head
        request.method = parser.get_method()
        version = parser.get_http_version()
        if version != "1.1":
            head.is_11 = False
            if version != "1.0":
                self._owner.on_unreadable(
                    problems.VERSION_NOT_SUPPORTED, "The gateway understands HTTP/1.1 and HTTP/1.0 only."
                )
                return
        head.keep_alive = parser.should_keep_alive()
        self._last = not head.keep_alive
        request.head_complete = True
        # Most heads are far from any limit, and are not counted.
        long = self._head_read or self._read_bytes > HEAD_BYTES_SMALL or len(head.fields) > HEADER_FIELDS_FEW
        limits = self._limits
        if long and is_too_large(head, request.raw_target, limits.head_bytes_max, limits.header_fields_max):
            self._head_too_large()
            return
        if request.method == b"CONNECT":
            self._owner.on_unreadable(problems.NOT_IMPLEMENTED, NO_TUNNEL)
            return
        if parser.should_upgrade():
            self._upgraded = self._owner.grant_upgrade(request)
            if not self._upgraded:
                self._ignore_upgrade(head)
        # Whether an Upgrade is ignored depends on the route, unless no route offers it.
        anywhere = not head.upgrade or self._offered.isdisjoint(head.upgrade)
        if not self._head_read and head.repeatable and not self._upgraded and anywhere:
            self._learn = head
        self._owner.on_request_head(request)

    def _ignore_upgrade(self, head: RequestHead) -> None:
        """llhttp takes the head of a request with an Upgrade for all of it. Another parser reads the body: it is given
        the framing that the head has."""
        framing = request_framing(head)
        if framing is Framing.UNKNOWN:
            self._owner.on_unknown_end()
        elif framing is not Framing.NONE:
            self._body_parser = body_parser(self, framing, head.content_length or 0)

    def on_body_complete(self) -> None:
        """The end of a body that had a parser of its own."""
        self._body_parser = None
        self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        if self.receiving is not None and not self._stopped:
            self.receiving.on_request_body(data)

    def on_message_complete(self) -> None:
        if self._body_parser is not None:
            return  # so llhttp says of the head
        self._boundaries.request_ended()
        request, self.receiving = self.receiving, None
        if request is not None and not self._stopped:
            self._owner.on_request_end(request)
