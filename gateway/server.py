"""The gateway's composition root: settings in, a running uvicorn server out."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from redis.asyncio import Redis
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from gateway.downstream import Downstream
from gateway.settings import GatewaySettings
from gateway.worker import Worker
from quota.ledger import Ledger, LedgerError, LedgerUnavailable
from quota.settings import SettingsError, load
from quota.telemetry import log_json

BACKLOG = 4096  # connections the kernel holds while every worker is busy
DRAIN_SECONDS = 30  # exchanges under way get this long after SIGTERM


def run(
    config_path: Path | None = None, host: str | None = None, port: int | None = None, workers: int | None = None
) -> None:
    """Runs the gateway until SIGTERM or SIGINT. Raises SettingsError for settings that cannot work."""
    log_json("gateway")
    settings = load(config_path, "gateway.yaml", GatewaySettings)
    uvloop.run(_check_layout(settings))
    listener = _listen(host or settings.listen.host, settings.listen.port if port is None else port)
    config = uvicorn.Config(
        partial(make_app, settings),
        factory=True,
        http=Downstream,
        ws="none",
        lifespan="on",
        loop="uvloop",
        backlog=BACKLOG,
        workers=workers or settings.workers,
        server_header=False,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    if config.workers > 1:
        Multiprocess(config, sockets=[listener]).run()
    else:
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has drained
            uvicorn.Server(config).run(sockets=[listener])


def make_app(settings: GatewaySettings) -> Starlette:
    """The ASGI app that uvicorn asks for, in each process. It serves nothing itself: its lifespan makes the worker,
    which every client connection finds in the lifespan's state."""
    log_json("gateway")  # a spawned worker starts with no logging setup

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        worker = Worker(settings, asyncio.get_running_loop())
        await worker.start()
        try:
            yield {"worker": worker}
        finally:
            await worker.close()

    return Starlette(lifespan=lifespan)


async def _check_layout(settings: GatewaySettings) -> None:
    """A wrong shard count stops the start. A Redis that is away does not: the gateway refuses until it is there."""
    redis = Redis.from_url(settings.redis.url.get_secret_value(), socket_connect_timeout=2, socket_timeout=2)
    try:
        await Ledger(redis, settings.redis.shards).check_layout()
    except LedgerUnavailable:
        pass
    except LedgerError as e:
        raise SettingsError(str(e)) from e
    finally:
        await redis.aclose()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as e:
        listener.close()
        raise SettingsError(f"cannot listen on {host}:{port}: {e.strerror}") from e
    listener.set_inheritable(True)
    return listener
