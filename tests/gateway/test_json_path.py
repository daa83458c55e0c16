"""One number of a JSON text that passes in pieces: what json.loads finds, cut anywhere, in constant memory."""

import gc
import json
import sys
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metering.json_path import ANOTHER_KIND, JsonPaths, PathTree
from gateway.metering.reported import Reading, UsageReport
from gateway.settings.metering import ReportedCost

NAMES = st.sampled_from(["usage", "total_tokens", "usag", 'u"s', "us\\", "ü", "", "usage.total", "\U0001f600", "a"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**6), st.floats(0, 10), st.text('"\\{}[],:u 1é', max_size=6)
)
TEXTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
USAGE = st.fixed_dictionaries({"usage": st.one_of(TEXTS, st.fixed_dictionaries({"total_tokens": SCALARS}))})
DOCUMENTS = st.one_of(
    TEXTS, USAGE, st.tuples(USAGE, st.dictionaries(NAMES, TEXTS, max_size=3)).map(lambda p: p[1] | p[0])
)


def expected(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    if document is None:
        return None
    return json.dumps(document).encode() if isinstance(document, (bool, int, float)) else ANOTHER_KIND


def pieces(text: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(at)]


def scanned(parts: list[bytes], path: str = "usage.total_tokens") -> bytes | None:
    scanner = JsonPaths(PathTree([path]))
    for part in parts:
        scanner.feed(part)
    return scanner.value(0)


@given(
    DOCUMENTS,
    st.sampled_from(["usage.total_tokens", "usage", "ü", 'u"s.a', "us\\", "\U0001f600.a", "a.a.a"]),
    st.booleans(),
    st.sampled_from([None, 0, 2]),
    st.lists(st.integers(0, 10_000), max_size=6),
)
def test_it_finds_what_json_loads_finds_however_the_text_is_written_and_cut(
    document: Any, path: str, escaped: bool, indent: int | None, cuts: list[int]
) -> None:
    text = json.dumps(document, ensure_ascii=escaped, indent=indent).encode("utf-8", "surrogatepass")
    assert scanned(pieces(text, cuts), path) == expected(document, path)
    assert scanned([text[i : i + 1] for i in range(len(text))], path) == expected(document, path)


@given(
    DOCUMENTS,
    st.lists(
        st.sampled_from(["usage.total_tokens", "usage", "ü", "usage.a", "usage.usage.total_tokens", "a.a", "a"]),
        min_size=1,
        unique=True,
    ),
    st.lists(st.integers(0, 10_000), max_size=6),
)
def test_several_paths_are_found_in_one_pass_as_each_is_alone(document: Any, paths: list[str], cuts: list[int]) -> None:
    text = json.dumps(document).encode()
    scanner = JsonPaths(PathTree(paths))
    for part in pieces(text, cuts):
        scanner.feed(part)
    assert [scanner.value(n) for n in range(len(paths))] == [expected(document, path) for path in paths]


@given(st.lists(DOCUMENTS, max_size=4), st.lists(st.integers(0, 10_000), max_size=6))
def test_the_last_text_that_has_the_path_counts(documents: list[Any], cuts: list[int]) -> None:
    text = b"\n".join(json.dumps(document).encode() for document in documents)
    values = [value for document in documents if (value := expected(document, "usage.total_tokens")) is not None]
    assert scanned(pieces(text, cuts)) == (values[-1] if values else None)


@given(
    st.lists(
        st.sampled_from(
            [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b'"usage"', b'"total_tokens"', b"1", b" ", b"\xff"]
        )
    ),
    st.lists(st.integers(0, 100), max_size=4),
)
def test_junk_is_no_error_and_is_forgotten_with_its_document(parts: list[bytes], cuts: list[int]) -> None:
    scanner = JsonPaths(PathTree(["usage.total_tokens"]))
    for part in pieces(b"".join(parts), cuts):
        scanner.feed(part)
    scanner.end_document()
    scanner.feed(b'{"usage": {"total_tokens": 42}}')
    assert scanner.value(0) == b"42"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"usage": {"total_tokens": 1}, "usage": {"total_tokens": 2}}', b"2"),
        (b'{"usage": {"total_tokens": 1}, "usage": {}}', None),
        (b'{"usage": {"total_tokens": 1, "total_tokens": null}}', None),
        (b'{"us\\u0061ge": {"total_\\u0074okens": 7}}', b"7"),
        (b'{"text": "\\"usage\\": {\\"total_tokens\\": 9}", "usage": {"total_tokens": 3}}', b"3"),
        (b'{"choices": [{"usage": {"total_tokens": 9}}], "usage": {"total_tokens": 3}}', b"3"),
        (b'[{"usage": {"total_tokens": 9}}]', None),
        (b'{"x": {"usage": {"total_tokens": 9}}}', None),
        (b'{"usage": [{"total_tokens": 9}]}', None),
        (b'{"usage": {"total_tokens": "9"}}', ANOTHER_KIND),
        (b'{"usage": {"total_tokens": {"total_tokens": 9}}}', ANOTHER_KIND),
        (b'{"usage": {"total_tokens": ' + b" " * 100 + b"5" + b" " * 100 + b"}}", b"5"),
        (b'\xef\xbb\xbf{"usage": {"total_tokens": 5}}', b"5"),
        (b'{"usage": {"total_tokens": 5}, "text": "cut', b"5"),
        (b'{"usage": {"total_tokens": 5', None),
    ],
)
def test_names_strings_and_nesting_do_not_deceive_it(text: bytes, value: bytes | None) -> None:
    for size in (1, 2, 3, 7, len(text)):
        assert scanned([text[i : i + size] for i in range(0, len(text), size)]) == value


def attributes(scanner: JsonPaths) -> list[object]:
    """The objects that it keeps; a compiled class has no `__dict__`."""
    kept = [vars(scanner)] if hasattr(scanner, "__dict__") else [scanner]
    return [each for each in gc.get_referents(*kept) if not isinstance(each, type)]


def test_its_memory_does_not_grow_with_the_text() -> None:
    scanner = JsonPaths(PathTree(["usage.total_tokens"]))
    piece = b"x" * 65_536
    for start in (b'{"', b'": "', b'", "usage": {"', b'": 1, "total_tokens": ', b"[" * 1000 + b'"'):
        scanner.feed(start)
        for _ in range(50):
            scanner.feed(piece)
        assert sum(sys.getsizeof(value) for value in attributes(scanner)) < 2000


# Bodies


def reported(body: bytes, kind: str, size: int = 5, coding: bytes = b"") -> tuple[int | None, str]:
    cost = ReportedCost.model_validate({"reported": {"json": "usage.total_tokens"}, "estimate": 1, "max": 1000})
    report = UsageReport(Reading([("tokens", cost)]))
    fields = [b"Content-Type: %b\r\n" % kind.encode()]
    report.on_head(fields + ([b"Content-Encoding: %b\r\n" % coding] if coding else []))
    for at in range(0, len(body), size):
        report.on_body(body[at : at + size])
    units, outcomes = report.units()
    return units.get("tokens"), outcomes["tokens"]


def usage(n: Any) -> bytes:
    return json.dumps({"id": "x", "usage": {"total_tokens": n}}).encode()


NO_USAGE = b'{"choices": [{"delta": {"content": "data: {}"}}], "usage": null}'


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 16, 10_000])
def test_the_last_event_of_a_stream_that_holds_the_path_counts(end: bytes, size: int) -> None:
    lines = [
        b": comment",
        b"event: message",
        b"data: " + usage(1),
        b"",
        b"data:" + NO_USAGE,
        b"",
        b'data: {"usage":',
        b'data: {"total_tokens"',
        b"data: : 77}}",
        b"id: 5",
        b"",
        b"database: " + usage(9),
        b"data",
        b"",
        b"data: " + NO_USAGE,
        b"",
        b"data: [DONE]",
        b"",
        b"",
    ]
    assert reported(end.join(lines), "text/event-stream; charset=utf-8", size) == (77, "told")


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_lines_of_json_are_texts_of_their_own_and_a_broken_one_spoils_no_other(size: int) -> None:
    body = b"\n".join([usage(1), b'{"usage": {"total_tokens', usage(5), b"}}}]", NO_USAGE, b""])
    assert reported(body, "application/x-ndjson", size) == (5, "told")


@pytest.mark.parametrize("window", [zlib.MAX_WBITS, 16 + zlib.MAX_WBITS])
def test_a_compressed_body_is_read_through_its_compression(window: int) -> None:
    packer = zlib.compressobj(wbits=window)
    body = packer.compress(b'{"text": "%b", ' % (b"blah " * 10_000) + usage(12)[1:]) + packer.flush()
    coding = b"gzip" if window > 16 else b"deflate"
    assert reported(body, "application/json", 7, coding) == (12, "told")
    assert reported(b"junk" + body, "application/json", 7, coding) == (None, "unreadable")
    assert reported(body, "application/json", 7, b"br") == (None, "unreadable")


def test_a_bomb_is_given_up_and_not_unpacked() -> None:
    packer = zlib.compressobj()
    body = packer.compress(usage(12)) + packer.compress(b" " * 50_000_000) + packer.flush()
    assert reported(body, "application/json", 65_536, b"deflate") == (None, "unreadable")


@pytest.mark.parametrize(
    ("body", "kind", "outcome"),
    [
        (usage(1000), "application/json", "told"),
        (usage(0), "application/vnd.api+json", "told"),
        (usage(1001), "application/json", "above_max"),
        (usage(-1), "application/json", "malformed"),
        (usage(1.5), "application/json", "malformed"),
        (usage("5"), "application/json", "malformed"),
        (usage(True), "application/json", "malformed"),
        (usage(None), "application/json", "missing"),
        (b"", "application/json", "missing"),
        (b"<usage>5</usage>", "text/html", "unreadable"),
        (usage(5), "", "unreadable"),
    ],
)
def test_what_cannot_be_believed_is_named(body: bytes, kind: str, outcome: str) -> None:
    assert reported(body, kind)[1] == outcome
