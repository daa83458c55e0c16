from tests.control.epochs import vouched_streams
from tests.control.plane import (
    admin,
    catalogue,
    clock,
    context,
    entitled,
    new_streams,
    nobody,
    plain_logs,
    redis,
    settings,
    token_of,
)
from tests.control.reporting import post

__all__ = [
    "admin",
    "catalogue",
    "clock",
    "context",
    "entitled",
    "new_streams",
    "nobody",
    "plain_logs",
    "post",
    "redis",
    "settings",
    "token_of",
    "vouched_streams",
]
