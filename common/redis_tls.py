"""redis-py's connections with TLS, whose certificates follow their files."""

import ssl
from typing import Any, ClassVar, cast

from redis.exceptions import ConnectionError as RedisConnectionError

from common import redis_url
from common.certificates import Certificates


class WithCertificates:
    """Before a connection class with TLS: redis-py itself reads the files once for each object, although that
    may connect again and again."""

    url: ClassVar[str]
    certificates: ClassVar[Certificates[ssl.SSLContext] | None] = None

    async def _connect(self) -> None:
        kind = type(self)
        try:
            if kind.certificates is None:
                kind.certificates = redis_url.certificates(kind.url)
            if kind.certificates is not None:
                cast("Any", self).ssl_context.context = await kind.certificates.current()
        except ValueError as e:
            raise RedisConnectionError(str(e)) from None
        await cast("Any", super())._connect()
