"""What a client sends, and the usual answer of an upstream, as bytes."""

from tests.gateway.rig.organization import Organization

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(path: str = "/", organization: Organization | None = None, lines: bytes = b"") -> bytes:
    return request(organization.auth if organization is not None else b"", lines=lines, path=path)


def request(auth: bytes = b"", method: bytes = b"GET", lines: bytes = b"", body: bytes = b"", path: str = "/") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: api.example.com\r\n%b%b\r\n%b" % (method, path.encode(), auth, lines, body)


def post(auth: bytes) -> bytes:
    return request(auth, b"POST", b"Content-Length: 5\r\n", b"hello")
