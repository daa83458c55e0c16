"""What benchmarks send is what a gateway in front of many customers meets."""

from collections import Counter, defaultdict
from itertools import islice

import httptools

from bench.traffic import ORGS, SHAPES, Traffic, varied


class Parsed:
    """One request as llhttp reads it."""

    def __init__(self, request: bytes) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.body = b""
        self.complete = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(request)
        self.method = parser.get_method()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


def first(number: int, traffic: Traffic) -> list[bytes]:
    return list(islice(traffic.requests(), number))


def test_no_varied_request_comes_twice() -> None:
    traffic = varied(ORGS)
    later = [traffic.request(2**20 + number) for number in range(5_000)]
    sent = first(5_000, traffic) + later
    assert len(set(sent)) == len(sent)
    assert len({request.split(b" ", 2)[1] for request in sent}) == len(sent)
    assert len({Parsed(request).fields[b"traceparent"] for request in sent}) == len(sent)


def test_each_organization_is_seen_with_each_kind_of_client() -> None:
    traffic = varied(ORGS)
    clients: dict[bytes, set[bytes]] = defaultdict(set)
    for request in first(20 * len(ORGS), traffic):
        fields = Parsed(request).fields
        clients[fields[b"authorization"]].add(fields[b"user-agent"])
    assert len(clients) == len(ORGS)
    assert {len(agents) for agents in clients.values()} == {4}


def test_every_fifth_varied_request_is_a_post_with_a_body_of_the_length_it_says() -> None:
    parsed = [Parsed(request) for request in first(SHAPES, varied(ORGS))]
    assert all(request.complete for request in parsed)
    assert [at for at, request in enumerate(parsed) if request.method == b"POST"] == list(range(4, SHAPES, 5))
    bodies = Counter(len(request.body) for request in parsed if request.method == b"POST")
    assert min(bodies) >= 150
    assert max(bodies) <= 250
    assert len(bodies) > 20


def test_varied_requests_have_as_many_fields_as_clients_send() -> None:
    numbers = {len(Parsed(request).fields) for request in first(SHAPES, varied(ORGS)) if request.startswith(b"GET")}
    assert numbers == {5, 8, 10, 14}


def test_a_path_is_put_before_all_others() -> None:
    assert all(request.split(b" ")[1].startswith(b"/seen/v1/") for request in first(SHAPES, varied(ORGS, "/seen")))
