"""A request to forward, and the fields of one that has arrived."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def request(lines: bytes = b"", line: bytes = b"GET / HTTP/1.1", body: bytes = b"") -> bytes:
    return b"%b\r\nHost: api.example.com\r\n%b\r\n%b" % (line, lines, body)


def lines_of(message: bytes) -> list[bytes]:
    return message.partition(b"\r\n\r\n")[0].split(b"\r\n")


def fields_of(message: bytes) -> dict[str, str]:
    pairs = [line.decode().split(": ", 1) for line in lines_of(message)[1:]]
    assert len({name.lower() for name, _ in pairs}) == len(pairs), "a field is there twice"
    return {name.lower(): value for name, value in pairs}
