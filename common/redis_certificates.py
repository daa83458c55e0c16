"""Which certificates the address of Redis names, and until when they are valid."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from common import redis_url
from common.certificate_dates import Until, authorities_until, own_until

_OPTIONS: Final = (("ssl_certfile", own_until), ("ssl_ca_certs", authorities_until))


def certificate_files(url: str) -> Iterator[tuple[Path, Until]]:
    """The files, and how long those of each last."""
    seen = set[Path]()
    for plain in redis_url.plain_urls(url):
        parts = redis_url.parts(plain)
        for name, until in _OPTIONS:
            if name in parts and (file := Path(parts[name])) not in seen:
                seen.add(file)
                yield file, until
