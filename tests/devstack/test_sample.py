"""The sample upstream answers as httpbin does, and counts what reached it."""

import hashlib
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from devstack import sample_process


@pytest.fixture
async def client(sample_upstream: str) -> AsyncIterator[httpx.AsyncClient]:
    sample_process.forget_hits(sample_upstream)
    async with httpx.AsyncClient(base_url=sample_upstream) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_anything_echoes_what_arrived(client: httpx.AsyncClient, method: str) -> None:
    response = await client.request(method, "/anything/deep?a=1&a=2&b=3", json={"x": 1}, headers={"X-Own": "y"})
    echoed = response.json()
    assert echoed["method"] == method
    assert echoed["args"] == {"a": ["1", "2"], "b": "3"}
    assert echoed["json"] == {"x": 1}
    assert json.loads(echoed["data"]) == {"x": 1}
    assert echoed["headers"]["X-Own"] == "y"
    assert echoed["url"].endswith("/anything/deep?a=1&a=2&b=3")
    assert echoed["origin"] == "127.0.0.1"


async def test_a_form_is_told_as_a_form(client: httpx.AsyncClient) -> None:
    echoed = (await client.post("/post", data={"a": "1"})).json()
    assert (echoed["form"], echoed["data"]) == ({"a": "1"}, "")


async def test_a_body_that_is_no_text_comes_back_encoded(client: httpx.AsyncClient) -> None:
    echoed = (await client.put("/put", content=b"\xff\x00")).json()
    assert echoed["data"] == "data:application/octet-stream;base64,/wA="


async def test_a_large_body_is_counted_and_hashed_but_not_sent_back_whole(client: httpx.AsyncClient) -> None:
    body = b"x" * (3 * 1024 * 1024)
    echoed = (await client.post("/anything", content=body)).json()
    assert echoed["bytes_received"] == len(body)
    assert echoed["sha256"] == hashlib.sha256(body).hexdigest()
    assert len(echoed["data"]) == 1024 * 1024


async def test_bytes_of_one_seed_are_the_same_and_of_the_length_announced(client: httpx.AsyncClient) -> None:
    first = await client.get("/bytes/200000?seed=7")
    again = await client.get("/bytes/200000?seed=7")
    chunked = await client.get("/stream-bytes/1000?seed=7&chunk_size=100")
    assert first.content == again.content
    assert first.headers["content-length"] == "200000"
    assert (chunked.headers["transfer-encoding"], len(chunked.content)) == ("chunked", 1000)


async def test_a_stream_has_one_line_of_json_for_each_number(client: httpx.AsyncClient) -> None:
    response = await client.get("/stream/3")
    assert response.headers["transfer-encoding"] == "chunked"
    assert [json.loads(line)["id"] for line in response.text.splitlines()] == [0, 1, 2]


async def test_server_sent_events_arrive_one_by_one(client: httpx.AsyncClient) -> None:
    response = await client.get("/sse?count=3&interval_ms=1")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert [event.splitlines()[0] for event in response.text.split("\n\n")[:-1]] == ["id: 0", "id: 1", "id: 2"]


@pytest.mark.parametrize("code", [200, 204, 302, 304, 404, 500, 599])
async def test_a_status_is_the_one_asked_for(client: httpx.AsyncClient, code: int) -> None:
    assert (await client.get(f"/status/{code}")).status_code == code


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/get", 200),
        ("/headers", 200),
        ("/ip", 200),
        ("/user-agent", 200),
        ("/uuid", 200),
        ("/delay/0.01", 200),
        ("/drip?duration=0.01&numbytes=3", 200),
        ("/redirect-to?url=/get", 302),
        ("/gzip", 200),
        ("/response-headers?x-a=1", 200),
        ("/post", 405),
        ("/nowhere", 404),
        ("/status/100", 400),
        ("/sse?count=many", 400),
        ("/redirect-to", 400),
    ],
)
async def test_every_path_answers(client: httpx.AsyncClient, path: str, status: int) -> None:
    response = await client.get(path)
    assert response.status_code == status


async def test_a_response_is_gzipped_or_given_headers_when_asked(client: httpx.AsyncClient) -> None:
    gzipped = await client.get("/gzip")
    assert (gzipped.headers["content-encoding"], gzipped.json()["gzipped"]) == ("gzip", True)
    assert (await client.get("/response-headers?x-own=1")).headers["x-own"] == "1"


async def test_hits_count_each_request_by_its_organization(client: httpx.AsyncClient, sample_upstream: str) -> None:
    for org in ("acme", "acme", "tiny"):
        await client.get("/get", headers={"X-Quota-Org": org})
    await client.get("/nowhere")
    assert sample_process.hits(sample_upstream) == {"total": 4, "by_org": {"acme": 2, "tiny": 1, "": 1}}
    sample_process.forget_hits(sample_upstream)
    assert sample_process.hits(sample_upstream) == {"total": 0, "by_org": {}}
