"""Which certificates the address of Redis names, and until when they are valid."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from common import redis_url
from common.certificate_dates import Until, authorities_until, own_until

_OPTIONS: Final = (("ssl_certfile", own_until), ("ssl_ca_certs", authorities_until))


def certificate_files(url: str) -> Iterator[tuple[Path, Until]]:
    """The files, and how long those of each last."""
    parts = redis_url.parts(url)
    for name, until in _OPTIONS:
        if name in parts:
            yield Path(parts[name]), until
