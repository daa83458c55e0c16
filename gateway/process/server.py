"""The gateway's composition root: settings in, a running uvicorn server out.

Nothing here is of a request's way: the supervisor holds no more than it needs to keep workers running.
"""

import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from common import redis_connections
from common.listening import bound, bound_unix
from common.redis_keeping import refuse_losses
from common.settings_file import SettingsError, load
from common.telemetry import log_json
from gateway.observe.access_log import open_log
from gateway.process.supervisor import Supervisor
from gateway.settings.root import GatewaySettings
from quota.ledger import Ledger, LedgerError, LedgerUnavailable

CONNECTION = "gateway.client.client_connection:ClientConnection"  # by its name, for uvicorn to import in a worker
BACKLOG = 4096  # connections the kernel holds while every worker is busy
CHECK_SECONDS = 2  # for Redis to tell at the start what it is


def run(
    config_path: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    management_port: int | None = None,
) -> None:
    """Runs the gateway until SIGTERM or SIGINT. Raises SettingsError for settings that cannot work."""
    log_json("gateway")
    given = {
        "listen": {"host": host, "port": port},
        "management": {"port": management_port},
        "workers": workers,
    }

    def read() -> GatewaySettings:
        """The file with what the command line says instead. Raises SettingsError."""
        settings = _replaced(load(config_path, "gateway.yaml", GatewaySettings), given)
        _check_access_log(settings.access_log.path)
        return settings

    settings = read()
    uvloop.run(_check_redis(settings))
    listen = settings.listen
    if listen.socket is None:
        listener = bound(listen.host, listen.port)
    else:
        listener = bound_unix(Path(listen.socket), int(listen.socket_mode, 8))
    Supervisor(settings, read, configured, listener).run()


def configured(settings: GatewaySettings, directory: Path) -> uvicorn.Config:
    return uvicorn.Config(
        partial(make_app, settings, directory),
        factory=True,
        http=CONNECTION,
        ws="none",
        lifespan="on",
        loop="uvloop",
        backlog=BACKLOG,
        server_header=False,
        log_config=None,
        access_log=False,
    )


def _replaced(settings: GatewaySettings, given: dict[str, Any]) -> GatewaySettings:
    listen = {name: value for name, value in given["listen"].items() if value is not None}
    if listen:
        listen["socket"] = None
    management = {name: value for name, value in given["management"].items() if value is not None}
    return settings.model_copy(
        update={
            "listen": settings.listen.model_copy(update=listen),
            "management": settings.management.model_copy(update=management),
            "workers": given["workers"] or settings.workers,
        }
    )


def _check_access_log(path: Path | None) -> None:
    if path is not None:
        try:
            os.close(open_log(path))
        except OSError as e:
            raise SettingsError(f"access_log.path: {path} cannot be opened: {e.strerror}") from e


def make_app(settings: GatewaySettings, directory: Path) -> Callable[..., Awaitable[None]]:
    """What uvicorn asks for in each worker's process."""
    log_json("gateway")  # a spawned worker starts with no logging setup
    from gateway.process.lifespan import Lifespan  # with all that is on a request's way, which only a worker needs

    return Lifespan(settings, directory)


async def _check_redis(settings: GatewaySettings) -> None:
    """A wrong shard count stops the start, and so does a server that is not supported, or may lose what is charged. A
    Redis that is away does not: the gateway refuses until it is there."""
    redis = redis_connections.client(
        settings.redis.url.get_secret_value(), socket_connect_timeout=CHECK_SECONDS, socket_timeout=CHECK_SECONDS
    )
    try:
        await Ledger(redis, settings.redis.shards).check_layout()
        await refuse_losses(redis, settings.redis.persistence)
    except LedgerUnavailable:
        pass
    except LedgerError as e:
        raise SettingsError(str(e)) from e
    finally:
        await redis.aclose()
