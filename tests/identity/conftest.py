import asyncio
from collections.abc import Callable, Mapping

import uvloop

from tests.control.plane import plain_logs
from tests.gateway.conftest import intervals, issuer, organization, start, until, upstream

__all__ = ["intervals", "issuer", "organization", "plain_logs", "start", "until", "upstream"]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
