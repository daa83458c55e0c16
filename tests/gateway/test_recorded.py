"""A recorded request is written as spans that say what is known of it, whatever its client sent."""

from common.otlp.wire import Origin
from gateway.http.trace import Recording
from gateway.observe.record import CLIENT_LEFT, SHADOW
from gateway.observe.recorded import RecordedRequest, Take, encoded
from tests.otlp_receiver import Collector, Received, read_spans

TRACE, PARENT, ID = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7", b"0123456789abcdef0123"
MS, CLOCK_NS = 1_000_000, 1_700_000_000_000_000_000


class Takes:
    answered_sent_at = answered_at = 0.0


RECORDING = Recording(Takes(), 1.0)
REQUEST = RecordedRequest(
    id=ID,
    trace_id=TRACE,
    parent_id=PARENT,
    method=b"POST",
    path=b"/v1/things",
    route="/",
    upstream="api",
    org="acme",
    key="Zk3aaaaaaaaa",
    correlation=None,
    verdict=b"admitted",
    status=200,
    aborted=False,
    charges={"api_calls": 1, "tokens": 5_000_000_000},
    bytes_in=70_000,
    bytes_out=300,
    began_ns=10 * MS,
    forwarded_ns=12 * MS,
    headed_ns=15 * MS,
    ended_ns=16 * MS,
    resent=False,
    take=Take(0.0105, 0.0115),
)


def spans_of(request: RecordedRequest) -> list[Received]:
    collector = Collector()
    read_spans(collector, Origin({"service.name": "test"}, "1").request(encoded(request, RECORDING, CLOCK_NS)))
    return collector.spans


def test_what_is_known_of_a_recorded_request_is_in_its_spans() -> None:
    of_request, take, forwarded = spans_of(REQUEST)
    assert (of_request.name, take.name, forwarded.name) == ("POST /", "take", "POST")
    assert of_request.attributes == {
        "http.request.method": "POST",
        "url.path": "/v1/things",
        "http.route": "/",
        "http.response.status_code": 200,
        "http.request.body.size": 70_000,
        "quotagate.bytes_out": 300,
        "quotagate.request_id": ID.decode(),
        "quotagate.org": "acme",
        "quotagate.key": "Zk3aaaaaaaaa",
        "quotagate.verdict": "admitted",
        "quotagate.charged.api_calls": 1,
        "quotagate.charged.tokens": 5_000_000_000,
    }
    assert take.attributes == {
        "db.system.name": "redis",
        "db.operation.name": "take",
        "quotagate.verdict": "admitted",
    }
    assert forwarded.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "quotagate.upstream": "api",
        "quotagate.upstream.first_byte_us": 3000,
    }
    times = [(span.began_ns - CLOCK_NS, span.ended_ns - CLOCK_NS) for span in (of_request, take, forwarded)]
    assert times == [(10 * MS, 16 * MS), (10_500_000, 11_500_000), (12 * MS, 16 * MS)]
    assert {span.trace for span in (of_request, take, forwarded)} == {TRACE.decode()}
    assert [span.parent for span in (of_request, take, forwarded)] == [PARENT.decode(), of_request.id, of_request.id]


def test_what_differs_between_two_requests_of_a_route_is_never_mixed_up() -> None:
    spans_of(REQUEST)
    refused = REQUEST._replace(verdict=SHADOW + b"exhausted", status=503, aborted=True, parent_id=b"", resent=True)
    of_request, take, forwarded = spans_of(refused)
    assert of_request.attributes["quotagate.verdict"] == "exhausted"
    assert (of_request.attributes["quotagate.shadow"], of_request.attributes["quotagate.aborted"]) == (True, True)
    assert (of_request.attributes["error.type"], of_request.parent) == ("503", "")
    assert take.attributes["quotagate.verdict"] == "shadow_exhausted"
    assert forwarded.attributes["http.request.resend_count"] == 1
    assert (of_request.failed, take.failed, forwarded.failed) == (True, False, True)
    [again, _, _] = spans_of(REQUEST)
    assert (again.failed, "quotagate.shadow" in again.attributes, again.parent) == (False, False, PARENT.decode())


def test_a_request_without_an_answer_has_a_failed_exchange_unless_its_client_left() -> None:
    unanswered = REQUEST._replace(headed_ns=0, status=502)
    for status, failed in ((502, True), (CLIENT_LEFT, False)):
        [_, _, forwarded] = spans_of(unanswered._replace(status=status))
        assert forwarded.failed == failed
        assert forwarded.attributes == {"http.request.method": "POST", "quotagate.upstream": "api"}
    assert len(spans_of(unanswered._replace(forwarded_ns=0, take=None, status=401))) == 1, "it went nowhere"


def test_what_a_client_sends_that_is_no_ascii_is_readable() -> None:
    said = REQUEST._replace(path=b"/caf\xc3\xa9/\xff", correlation=b"caf\xe9", method=b"M-SEARCH", route=None, key=None)
    [of_request, *_] = spans_of(said)
    assert of_request.attributes["url.path"] == "/café/\\xff"
    assert of_request.attributes["quotagate.correlation"] == "café"
    assert (of_request.name, "http.route" in of_request.attributes) == ("M-SEARCH", False)
