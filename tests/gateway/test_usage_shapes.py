"""Usage in the shapes of public APIs, JSON and streams alike, read by one route: lists of paths, and sums.

The payloads are as OpenAI's and Anthropic's references show them, shortened in their texts.
"""

import json
from typing import Any

import pytest

from gateway.metering.reported import Reading, UsageReport
from gateway.settings.metering import ReportedCost
from quota.model import MeterLimit
from tests.gateway.rig import MakeOrganization, StartGateway, Upstream

METERS = (MeterLimit("tokens", 100_000),)


def events(*members: tuple[str | None, Any]) -> bytes:
    texts = []
    for name, data in members:
        texts.append(
            (f"event: {name}\n" if name else "") + f"data: {data if data == '[DONE]' else json.dumps(data)}\n\n"
        )
    return "".join(texts).encode()


# OpenAI, chat completions

CHAT = json.dumps(
    {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": 1741569952,
        "model": "gpt-5.4",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": 'Say "usage": {"total_tokens": 9}', "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 19,
            "completion_tokens": 10,
            "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        "service_tier": "default",
    },
    indent=2,
).encode()


def chat_chunk(usage: Any, choices: Any) -> Any:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices, "usage": usage}


CHAT_STREAM = events(
    (None, chat_chunk(None, [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])),
    (None, chat_chunk(None, [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}])),
    (None, chat_chunk(None, [{"index": 0, "delta": {}, "finish_reason": "stop"}])),
    (None, chat_chunk({"prompt_tokens": 19, "completion_tokens": 12, "total_tokens": 31}, [])),
    (None, "[DONE]"),
)

# OpenAI, responses

RESPONSE = {
    "id": "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
    "object": "response",
    "status": "completed",
    "output": [
        {"type": "message", "content": [{"type": "output_text", "text": "In a peaceful grove", "annotations": []}]}
    ],
    "usage": {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 123,
    },
    "metadata": {},
}
UNDER_WAY: dict[str, Any] = RESPONSE | {"status": "in_progress", "output": [], "usage": None}
RESPONSE_STREAM = events(
    ("response.created", {"type": "response.created", "response": UNDER_WAY}),
    ("response.in_progress", {"type": "response.in_progress", "response": UNDER_WAY}),
    ("response.output_item.added", {"type": "response.output_item.added", "item": {"type": "message", "content": []}}),
    ("response.output_text.delta", {"type": "response.output_text.delta", "delta": "In"}),
    ("response.output_text.delta", {"type": "response.output_text.delta", "delta": " a peaceful"}),
    ("response.completed", {"type": "response.completed", "response": RESPONSE}),
)

# Anthropic, messages

MESSAGE = json.dumps(
    {
        "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Hi! My name is Claude."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 2095, "output_tokens": 503, "cache_read_input_tokens": 0, "service_tier": "standard"},
    }
).encode()
MESSAGE_START = (
    "message_start",
    {
        "type": "message_start",
        "message": {
            "id": "msg_1nZdL29xx5MUA1yADyHTEsnR8uuvGzszyY",
            "type": "message",
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": 25, "output_tokens": 1},
        },
    },
)
MESSAGE_STREAM = events(
    MESSAGE_START,
    ("content_block_start", {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ("ping", {"type": "ping"}),
    ("content_block_delta", {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}}),
    ("message_delta", {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 5}}),
    ("content_block_delta", {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "!"}}),
    ("content_block_stop", {"type": "content_block_stop", "index": 0}),
    ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}}),
    ("message_stop", {"type": "message_stop"}),
)
# As it comes when tools of the server's own were used: the last event tells the input anew.
TOOL_STREAM = events(
    MESSAGE_START,
    (
        "message_delta",
        {"type": "message_delta", "delta": {}, "usage": {"input_tokens": 10682, "output_tokens": 510}},
    ),
    ("message_stop", {"type": "message_stop"}),
)

TOTAL = ["usage.total_tokens", "response.usage.total_tokens"]
SUM = {"sum": [["usage.input_tokens", "message.usage.input_tokens"], "usage.output_tokens"]}
SHAPES = {
    "chat": (TOTAL, CHAT, 29),
    "chat stream": (TOTAL, CHAT_STREAM, 31),
    "responses": (TOTAL, json.dumps(RESPONSE).encode(), 123),
    "responses stream": (TOTAL, RESPONSE_STREAM, 123),
    "messages": (SUM, MESSAGE, 2598),
    "messages stream": (SUM, MESSAGE_STREAM, 40),
    "messages stream with tools": (SUM, TOOL_STREAM, 11192),
}


def cost(paths: Any) -> dict[str, Any]:
    return {"reported": {"json": paths}, "estimate": 500, "max": 50_000}


def reported(paths: Any, body: bytes, size: int = 10_000, kind: bytes = b"text/event-stream") -> tuple[int | None, str]:
    report = UsageReport(Reading([("tokens", ReportedCost.model_validate(cost(paths)))]))
    report.on_head([b"Content-Type: %b\r\n" % kind])
    for at in range(0, len(body), size):
        report.on_body(body[at : at + size])
    units, outcomes = report.units()
    return units.get("tokens"), outcomes["tokens"]


@pytest.mark.parametrize("shape", SHAPES)
async def test_one_route_reads_the_json_and_the_stream_of_one_api(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, shape: str
) -> None:
    acme = await organization("acme", None, meters=METERS)
    paths, body, units = SHAPES[shape]
    kind = b"text/event-stream; charset=utf-8" if "stream" in shape else b"application/json"
    parts = [body[at : at + 50] for at in range(0, len(body), 50)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind
    upstream.answer = b"%b%b0\r\n\r\n" % (head, chunks)
    gateway = await start(routes=[{"path": "/", "upstream": "api", "meters": {"tokens": cost(paths)}}])
    answer = await gateway.ask(b"POST /v1 HTTP/1.1\r\nHost: a\r\n%bContent-Length: 2\r\n\r\n{}" % acme.auth)
    assert answer.body == body
    assert await acme.settled("ts")
    assert await acme.used("tokens") == units


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 3, 64])
def test_a_cut_in_the_body_makes_no_difference(shape: str, size: int) -> None:
    paths, body, units = SHAPES[shape]
    assert reported(paths, body, size, b"text/event-stream" if "stream" in shape else b"application/json") == (
        units,
        "told",
    )


@pytest.mark.parametrize(
    ("paths", "body", "expected"),
    [
        (["a", "b"], b'{"b": 2, "a": 1}', (1, "told")),
        (["a", "b"], b'{"b": 2}', (2, "told")),
        (["a", "b"], b'{"a": null, "b": 2}', (2, "told")),
        (["a", "b"], b'{"a": "1", "b": 2}', (None, "malformed")),
        (["a", "b"], b'{"c": 3}', (None, "missing")),
        (["a", "a"], b'{"a": 3}', (3, "told")),
        (["a", "a.b"], b'{"a": {"b": 3}}', (None, "malformed")),
        (["a.b", "a"], b'{"a": {"b": 3}}', (3, "told")),
        (["a.b", "a"], b'{"a": 4}', (4, "told")),
        ({"sum": ["a", "b"]}, b'{"a": 1, "b": 2}', (3, "told")),
        ({"sum": ["a"]}, b'{"a": 1}', (1, "told")),
        ({"sum": ["a", "a"]}, b'{"a": 4}', (8, "told")),
        ({"sum": ["a", "b"]}, b'{"a": 1}', (None, "missing")),
        ({"sum": ["a", "b"]}, b'{"a": 1, "b": null}', (None, "missing")),
        ({"sum": ["a", "b"]}, b'{"a": 1, "b": 1.5}', (None, "malformed")),
        ({"sum": ["a", "b"]}, b'{"a": 1, "b": -1}', (None, "malformed")),
        ({"sum": ["a", "b"]}, b'{"a": 25001, "b": 25000}', (None, "above_max")),
        ({"sum": ["a", ["b", "c"]]}, b'{"a": 1, "c": 5}', (6, "told")),
        ({"sum": ["a", ["b", "c"]]}, b'{"a": 1, "c": 5, "b": 0}', (1, "told")),
    ],
)
def test_a_list_takes_the_first_that_is_told_and_a_sum_needs_each_of_its_terms(
    paths: Any, body: bytes, expected: Any
) -> None:
    assert reported(paths, body, kind=b"application/json") == expected


@pytest.mark.parametrize(
    ("paths", "texts", "expected"),
    [
        ("a", ['{"a": 1}', '{"a": 2}', "{}"], (2, "told")),
        (["a", "b"], ['{"a": 1}', '{"b": 2}'], (1, "told")),  # the order of the list counts, not that of the stream
        (["a", "b"], ['{"b": 1}', '{"b": 2}'], (2, "told")),
        ({"sum": ["a", "b"]}, ['{"a": 1}', '{"b": 2}', '{"b": 7}'], (8, "told")),
        ({"sum": ["a", "b"]}, ['{"a": 1, "b": 1}', '{"a": null}', "[DONE]"], (2, "told")),
    ],
)
def test_in_a_stream_the_last_value_of_each_path_counts_by_itself(paths: Any, texts: list[str], expected: Any) -> None:
    body = "".join(f"data: {text}\n\n" for text in texts).encode()
    assert reported(paths, body) == expected
    assert reported(paths, "\n".join(texts).encode(), kind=b"application/x-ndjson") == expected


async def test_a_term_that_never_came_leaves_the_estimate_and_is_counted(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    acme = await organization("acme", None, meters=METERS)
    body = events(MESSAGE_START)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body)
    upstream.answer = head + body
    gateway = await start(routes=[{"path": "/", "upstream": "api", "meters": {"tokens": cost(SUM)}}])
    assert (await gateway.ask(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % acme.auth)).status == 200
    assert gateway.worker.recorder.reports == {("/", "missing"): 1}
    assert (await acme.events(), await acme.used("tokens")) == (["t"], 500)


async def test_meters_share_the_one_pass_over_the_body(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    meters = (*METERS, MeterLimit("input", 100_000), MeterLimit("output", 100_000))
    acme = await organization("acme", None, meters=meters)
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(MESSAGE),
        MESSAGE,
    )
    costs = {"tokens": cost(SUM), "input": cost("usage.input_tokens"), "output": cost(["no", "usage.output_tokens"])}
    gateway = await start(routes=[{"path": "/", "upstream": "api", "meters": costs}])
    assert (await gateway.ask(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % acme.auth)).status == 200
    assert await acme.settled("ts")
    assert [await acme.used(meter) for meter in costs] == [2598, 2095, 503]
