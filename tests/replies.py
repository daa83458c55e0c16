"""Replies of Redis as what they are. redis-py's types allow each of its commands str, bytes and None."""


def as_bytes(reply: object) -> bytes:
    assert isinstance(reply, bytes), reply
    return reply


def as_text(reply: object) -> str:
    return as_bytes(reply).decode()


def as_entries(reply: object) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Of a stream."""
    assert isinstance(reply, list), reply
    return [
        (as_bytes(entry), {as_bytes(name): as_bytes(value) for name, value in fields.items()})
        for entry, fields in reply
    ]
