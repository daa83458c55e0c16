"""The fields of requests as clients really send them: those of bench/traffic.py, each with a trace of its own."""

import random
from collections.abc import Mapping, Sequence

from bench.traffic import CLIENTS

LEFT_TO_THE_LIBRARY = {"host", "connection"}


def _template(client: str) -> dict[str, str]:
    lines = client.replace("{body}", "").replace(")b", ")s").splitlines()
    fields = (line.split(": ", 1) for line in lines if line)
    return {name: value for name, value in fields if name.lower() not in LEFT_TO_THE_LIBRARY}


TEMPLATES: Sequence[Mapping[str, str]] = [_template(client) for client in CLIENTS]


def fields(credential: str, client: int) -> dict[str, str]:
    """Of one request. `client`: any number; the same one for all requests of a user."""
    slots = {
        "token": credential,
        "trace": f"{random.getrandbits(128) or 1:032x}",
        "span": f"{random.getrandbits(64) or 1:016x}",
    }
    return {name: value % slots for name, value in TEMPLATES[client % len(TEMPLATES)].items()}


def target(path: str) -> str:
    """A thing of its own for each request, as ids and cursors make it."""
    return f"{path}/{random.getrandbits(48):012x}?limit=20&cursor={random.getrandbits(48):012x}"
