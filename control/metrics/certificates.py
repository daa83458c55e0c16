"""Which certificates the control plane's settings name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from common.certificate_dates import Until, authorities_until, own_until
from common.redis_certificates import certificate_files as of_redis
from control.settings.control_plane import Settings

_OF_POSTGRES: Final = (("sslcert", own_until), ("sslrootcert", authorities_until))  # as libpq calls them


def certificate_files(settings: Settings) -> Iterator[tuple[Path, Until]]:
    """The files, and how long those of each file last."""
    yield from of_redis(settings.redis.url.get_secret_value())
    for dsn in settings.postgres.dsns:
        given = parse_qs(urlsplit(dsn).query)
        for name, until in _OF_POSTGRES:
            for path in given.get(name, []):
                yield Path(path), until
