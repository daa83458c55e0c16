"""The Date of the gateway's own answers."""

from typing import Protocol


class Dated(Protocol):
    """Who keeps the line for a second: the worker, for all connections."""

    dated: list[tuple[bytes, bytes]] | None
    """What `date_field` was made of."""
    date_field: bytes


def date_field(worker: Dated, fields: list[tuple[bytes, bytes]]) -> bytes:
    """`fields`: uvicorn's default fields, which are a new list each second."""
    if worker.dated is not fields:
        worker.dated = fields
        worker.date_field = b"".join([b"%b: %b\r\n" % (name.title(), value) for name, value in fields])
    return worker.date_field
