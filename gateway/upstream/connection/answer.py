"""The upstream's answer to one request: parsed by llhttp, and passed on from its callbacks.

What one read of the upstream brought goes out in one write, and nothing is kept. Nothing here does I/O.
"""

import re
from typing import Final

import httptools

from gateway.http import headers
from gateway.http.boundaries import HTTP_1, BadStatusLine, Openings
from gateway.http.cors import exposing
from gateway.http.framing import CHUNKED, NONE, SIZED, UNTIL_CLOSE, Framing
from gateway.http.head import SECTION_BYTES_MAX, AnswerHead
from gateway.http.headers import classify_response
from gateway.upstream.connection.carried import CarriedRequest, Report
from gateway.upstream.connection.framing import (
    BadFraming,
    passed_framing,
    read_before_answered,
    read_framing,
    tells_of_a_body,
)
from gateway.upstream.connection.states import (
    AWAITED,
    BEGUN,
    BODY,
    BYTES_READ,
    COMPLETE,
    FORGOTTEN,
    GIVEN_UP,
    HEAD_IS_PASSED,
    HEAD_PASSED,
    INTERIM,
    INTERIM_PASSED,
    MORE_READ,
    SWITCH_GRANTED,
    SWITCHING,
    UNWANTED,
    WHOLE_PASSED,
)

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Answer:
    """What one connection reads in answer to the request that it carries. It is forgotten before the next request."""

    __deletable__ = ("_request",)  # mypyc keeps attributes that are not named here from being deleted
    __slots__ = (
        "_codings",
        "_dated",
        "_fields",
        "_learnable",
        "_length",
        "_nominated",
        "_openings",
        "_parser",
        "_reason",
        "_report",
        "_request",
        "_tells_rates",
        "_trailers",
        "_upgrade",
        "_with_cors",
        "behind",
        "fault",
        "framing",
        "out",
        "passed",
        "promised_idle_seconds",
        "refuses_rest",
        "state",
        "status",
        "used_again",
    )

    def __init__(self) -> None:
        self.state = AWAITED
        self.fault: str | None = None
        """Why it is none, or why more than it came."""
        self.status = 0
        self.framing = self.passed = NONE
        """As the upstream framed its body, and as the client gets it."""
        self.used_again = False
        """Whether the connection may carry another request, as far as this answer says."""
        self.refuses_rest = False
        """The upstream answered before it had the whole request, and takes no more of it."""
        self.promised_idle_seconds: int | None = None
        """For how long the upstream says that it keeps the connection."""
        self.out: list[bytes] = []
        """What the client gets of this read."""
        self.behind = b""
        """What came behind a 101."""
        self._request: CarriedRequest
        """From the first byte of the answer to its end."""
        self._report: Report | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._openings: Openings | None = None  # while another head may begin behind an interim one
        self._tells_rates = False  # the gateway, in place of the upstream
        self._trailers: list[bytes] = []
        self._clear_head()

    def _clear_head(self) -> None:
        self._reason = b""
        self._fields: list[bytes] = []
        self._nominated: list[bytes] = []
        self._length: bytes | None = None
        self._codings: bytes | None = None
        self._upgrade = b""
        self._dated = self._with_cors = False
        self._learnable = True

    def begin(self, request: CarriedRequest) -> None:
        self.state = BYTES_READ[self.state]
        self._request = request
        self._report = request.report
        self._tells_rates = bool(request.rate_fields)

    def forget(self) -> None:
        """It is over. Another request may follow on the connection, which keeps nothing of this one until then."""
        self._release_request()
        self.state = FORGOTTEN[self.state]
        self.fault = None
        self.refuses_rest = False
        self.promised_idle_seconds = None
        self.out.clear()
        self._openings = None
        self._trailers.clear()
        self._clear_head()

    def give_up(self) -> None:
        """Nobody waits for the rest."""
        self._release_request()
        self.state = GIVEN_UP[self.state]

    def _release_request(self) -> None:
        """The parser and this know each other, so what they hold would wait for the garbage collector."""
        if self.state is not AWAITED and self.state is not UNWANTED:
            del self._request
            self._report = None

    @property
    def head_passed(self) -> bool:
        return self.state in HEAD_IS_PASSED

    @property
    def can_be_another(self) -> bool:
        """Whether nothing of it has gone to the client, so that the answer to a second attempt may take its place."""
        return self.state is AWAITED or self.state is BEGUN

    def learned(self, data: bytes, idle_seconds: float | None) -> AnswerHead | None:
        """Its head, to be recognized, if the answer was one whole read, `data`, and the head is fit for that."""
        if self._length is None or not (self.used_again and self.framing is SIZED and self._learnable):
            return None
        end = data.find(b"\r\n\r\n") + 4
        if end > SECTION_BYTES_MAX or len(data) - end != int(self._length):
            return None
        fields = b"".join(self._fields)
        start = b"HTTP/1.1 %d %b\r\n%b" % (self.status, self._reason, fields)
        return AnswerHead(self.status, self._reason, fields, data[:end], len(data), start, self._dated, idle_seconds)

    def feed(self, data: bytes, first: bool) -> None:
        """Parses what was read; `first`: of this answer. What becomes of it is in the attributes."""
        if self._report is not None:
            self._report.on_read()
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpResponseParser(self)
        # One that is not interim: no other head begins behind it.
        if first and not (data.startswith(HTTP_1) and data[9:10] not in b"1"):
            self._openings = Openings()
        at = 0
        try:
            if self._openings is None:
                parser.feed_data(data)
                return
            while at < len(data):
                # Interim answers may be before the final one, and llhttp does not tell where each begins.
                end = len(data) if self.head_passed else self._openings.next_part(data, at)
                parser.feed_data(data[at:end])
                at = end
            if self.head_passed:
                self._openings = None
        except BadStatusLine:
            self._find_fault("the upstream's answer is none of HTTP/1.x")
        except httptools.HttpParserUpgrade as e:
            if self.state is SWITCHING and self.fault is None:
                self.behind = data[at + e.args[0] :]
            else:
                self.fault = "the upstream switched protocols, which nobody had asked for"
        except httptools.HttpParserError as e:
            self._find_fault(f"the upstream's answer is no HTTP: {e}")

    def switching_head(self) -> bytes:
        """The 101 as the client gets it, with the interim answers before it."""
        fields = b"".join(self._fields) + self._date_field(self._request)
        return b"".join(self.out) + self._request.switching_head(self._reason, fields)

    def end(self) -> bytes:
        """The connection has ended, and with it the body: what the client is still to get."""
        self.state = WHOLE_PASSED[self.state]
        return b"0\r\n\r\n" if self.passed is CHUNKED else b""

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        if self.state is COMPLETE and self.fault is None:
            self._find_surplus()

    def on_status(self, reason: bytes) -> None:
        self._reason += reason
        if _CONTROL.search(reason):  # RFC 9112 section 4, where llhttp lets them through
            self._find_fault("the reason phrase of the upstream's answer holds control characters")

    def on_header(self, name: bytes, value: bytes) -> None:
        state = self.state
        if state is not BEGUN and state is not INTERIM:
            if state is BODY:
                self._add_trailer(name, value)
            return
        kind = classify_response(name)
        if not kind:  # FORWARD
            self._fields.append(b"".join((name, b": ", value, b"\r\n")))
        elif kind == headers.DATE:
            self._dated = True
            self._fields.append(b"".join((name, b": ", value, b"\r\n")))
        elif kind == headers.CONTENT_LENGTH:
            self._length = value
            self._fields.append(b"".join((name, b": ", value, b"\r\n")))
        elif kind == headers.CONNECTION:
            self._nominated += headers.connection_tokens(value)
        elif kind == headers.TRANSFER_ENCODING:
            self._codings = value if self._codings is None else b"%b, %b" % (self._codings, value)
        else:
            self._add_rare_field(kind, name, value)

    def _add_rare_field(self, kind: int, name: bytes, value: bytes) -> None:
        if kind == headers.ALLOW_ORIGIN:
            self._with_cors = True
            self._fields.append(b"%b: %b\r\n" % (name, value))
        elif kind == headers.UPGRADE:
            self._upgrade = value
        elif kind == headers.KEEP_ALIVE:
            promised = headers.promised_idle_seconds(value)
            if promised is not None:
                self.promised_idle_seconds = promised
        elif kind == headers.RATE_LIMIT:
            self._learnable = False  # whether it goes on depends on the request
            if not self._tells_rates:
                self._fields.append(b"%b: %b\r\n" % (name, value))

    def _add_trailer(self, name: bytes, value: bytes) -> None:
        if self._report is not None:
            self._report.on_trailer(name, value)
        if self.passed is CHUNKED and headers.trailer_goes_on(name, self._nominated):
            self._trailers.append(b"%b: %b\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        parser, state = self._parser, self.state
        if parser is None or self.fault is not None or (state is not BEGUN and state is not INTERIM):
            return
        request, status = self._request, parser.get_status_code()
        try:
            framing = read_framing(status, request.method, self._length, self._codings)
        except BadFraming as e:
            self.fault = str(e)
            return
        if self._nominated:
            self._fields = headers.without(self._fields, self._nominated)
        if status < 200:
            self._pass_interim_head(request, status)
        else:
            self._pass_head(request, status, framing, parser.should_keep_alive())

    def on_body(self, data: bytes) -> None:
        if self.fault is not None:
            return
        if self.state is not BODY:
            if self.state is COMPLETE:
                self._find_surplus()
            return
        if self._report is not None:
            self._report.on_body(data)
        if self.passed is CHUNKED:
            self.out.append(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.out.append(data)

    def on_message_complete(self) -> None:
        if self.state is not BODY:
            return  # an interim answer, or one without a body
        self.state = WHOLE_PASSED[self.state]
        if self.passed is CHUNKED:
            self.out.append(b"0\r\n%b\r\n" % b"".join(self._request.edited_trailers(self._trailers)))

    # Heads

    def _pass_interim_head(self, request: CarriedRequest, status: int) -> None:
        if status == 101 and self._grants(request):
            self.state = SWITCH_GRANTED[self.state]
            return
        if status == 101 or status < 100:
            self.fault = f"the upstream answered {status}, which nobody had asked for"
        elif request.head.is_11:
            self.state = INTERIM_PASSED[self.state]
            fields = request.edited(b"".join(self._fields))
            self.out.append(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, self._reason, fields))
        self._clear_head()

    def _grants(self, request: CarriedRequest) -> bool:
        """Whether a 101 switches to what was asked for. It has no body (RFC 9110 section 15.2)."""
        bodiless = self._length is None and self._codings is None
        return bodiless and request.tunnel is not None and request.tunnel.answers(self._upgrade, self._nominated)

    def _pass_head(self, request: CarriedRequest, status: int, framing: Framing, kept_alive: bool) -> None:
        self.state = HEAD_PASSED[self.state]
        if framing is NONE:
            self.state = WHOLE_PASSED[self.state]
        self.status = status
        self.framing = framing
        self.passed = framing if framing is SIZED else passed_framing(framing, request.head.is_11)
        if self._report is not None:
            self._report.on_head(self._fields)
        self._decide_reuse(request, kept_alive)
        if status == 204 and self._length is not None:
            # RFC 9110 section 8.6 forbids it: a client that believed it would wait for a body.
            self._fields = [field for field in self._fields if not field.lower().startswith(b"content-length:")]
        if self.passed is UNTIL_CLOSE:
            request.keep_alive = False  # an HTTP/1.0 client sees the body's end by the connection's
        if self._with_cors:
            self._fields = exposing(self._fields)
        chunked = b"Transfer-Encoding: chunked\r\n" if self.passed is CHUNKED else b""
        fields = b"".join((*self._fields, self._date_field(request), chunked))
        self.out.append(request.answer_head(status, self._reason, fields))
        if request.method == b"HEAD":
            # llhttp would wait for the body that a HEAD's fields announce, so the next answer gets a new parser.
            self._parser = None

    def _decide_reuse(self, request: CarriedRequest, kept_alive: bool) -> None:
        goes_on = kept_alive and (self.status < 300 or read_before_answered(self.status, request.body_bytes))
        if not (request.request_complete or goes_on) and self.status >= 300:
            # The upstream does not want the rest, and is about to close: RFC 9112 section 9.5. The rest is dropped.
            self.refuses_rest = True
            request.release_client()
        # A body that an answer tells of and must not have may follow all the same, a bit later. It would be read as the
        # answer to the next request.
        ends = self.framing is UNTIL_CLOSE or (self.framing is NONE and tells_of_a_body(self._length, self._codings))
        self.used_again = goes_on and not ends

    def _date_field(self, request: CarriedRequest) -> bytes:
        """What is added to an answer without a Date: the time that it came (RFC 9110 section 6.6.1). Interim ones go on
        as they are: clients know `100 Continue` by its bytes."""
        return b"" if self._dated else request.client.date_field()

    # Faults

    def _find_fault(self, fault: str) -> None:
        if self.fault is None:
            self.fault = fault

    def _find_surplus(self) -> None:
        """Nobody asked for what is behind the answer, so nobody gets it."""
        self.state = MORE_READ[self.state]
        self._find_fault("there is more than the one answer")
