"""Requests and settings of one line, and what the head that arrives says."""

from typing import Any


def lines_of(message: bytes) -> list[bytes]:
    return message.partition(b"\r\n\r\n")[0].split(b"\r\n")


def fields(message: bytes) -> dict[str, str]:
    pairs = [line.decode().split(": ", 1) for line in lines_of(message)[1:]]
    values = {name.lower(): value for name, value in pairs}
    assert len(values) == len(pairs), "a field is there twice"
    return values


def line(message: bytes) -> str:
    return lines_of(message)[0].decode()


def to(**upstream: Any) -> dict[str, Any]:
    return {"upstreams": {"api": upstream}}


def on(path: str = "/", **route: Any) -> dict[str, Any]:
    return {"routes": [{"path": path, "upstream": "api", **route}]}


def ask(target: str = "/", lines: bytes = b"", method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: Api.Example.com:8080\r\n".encode() + lines + b"\r\n"


def request_with(lines: bytes = b"", line: bytes = b"GET / HTTP/1.1", body: bytes = b"") -> bytes:
    """A request by its header lines and its request line."""
    return b"%b\r\nHost: api.example.com\r\n%b\r\n%b" % (line, lines, body)
