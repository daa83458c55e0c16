import asyncio
from collections.abc import Callable, Mapping

import uvloop

from tests.control.plane import plain_logs
from tests.gateway.conftest import connect, intervals, issuer, organization, run, start, until, upstream

__all__ = ["connect", "intervals", "issuer", "organization", "plain_logs", "run", "start", "until", "upstream"]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
