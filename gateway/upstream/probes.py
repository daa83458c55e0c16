"""Active health probes: each target is asked from time to time whether it is well, by each worker for itself."""

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Iterable

import httpx

from gateway.settings.upstreams import Health
from gateway.upstream.balancer import Upstream
from gateway.upstream.endpoint import SOCKET_AUTHORITY
from gateway.upstream.pool import Pool

JITTER = 0.1  # of the interval, so that the workers' probes do not come together


class Probes:
    """The probes of all upstreams that have a `health`."""

    def __init__(
        self, upstreams: Iterable[Upstream], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._upstreams = list(upstreams)
        self._sleep = sleep
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for upstream in self._upstreams:
            if (health := upstream.settings.health) is not None:
                for target in upstream.targets:
                    self._tasks.append(asyncio.create_task(self._watch(upstream, target, health)))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, upstream: Upstream, target: Pool, health: Health) -> None:
        extensions = {"sni_hostname": target.endpoint.server_name} if target.endpoint.server_name else {}
        await self._sleep(random.uniform(0, JITTER) * health.interval_seconds)  # noqa: S311 - spreads load, guards nothing
        while True:
            context = None if target.endpoint.tls is None else await target.endpoint.tls.current()
            async with _client(upstream, target, health, context) as client:
                while target.endpoint.tls is None or await target.endpoint.tls.current() is context:
                    try:
                        async with asyncio.timeout(health.timeout_seconds):
                            # The body is not read: a stream without end must not keep the probe.
                            async with client.stream("GET", health.path, extensions=extensions) as reply:
                                well, why = reply.is_success, f"a health check was answered {reply.status_code}"
                    except (httpx.HTTPError, OSError, TimeoutError) as e:
                        well, why = False, f"a health check failed: {str(e) or type(e).__name__}"
                    upstream.record_probe(target, well, health, why)
                    await self._sleep(random.uniform(1 - JITTER, 1 + JITTER) * health.interval_seconds)  # noqa: S311 - spreads load, guards nothing


def _client(upstream: Upstream, target: Pool, health: Health, context: ssl.SSLContext | None) -> httpx.AsyncClient:
    verify = context or False
    return httpx.AsyncClient(
        base_url=target.endpoint.url if target.endpoint.socket is None else f"http://{SOCKET_AUTHORITY}",
        transport=httpx.AsyncHTTPTransport(verify=verify, uds=target.endpoint.socket),
        timeout=health.timeout_seconds,
        trust_env=False,
        headers=_fields(upstream, target),
    )


def _fields(upstream: Upstream, target: Pool) -> dict[str, str]:
    """What requests say of the host, and in place of a client's token."""
    host, credential = target.host_line.decode().strip().removeprefix("Host: "), upstream.settings.credential
    fields = {"Host": host} if host else {}
    return fields if credential is None else {**fields, credential.header: credential.value.get_secret_value()}
