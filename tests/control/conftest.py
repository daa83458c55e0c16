from tests.control.plane import (
    admin,
    catalogue,
    clock,
    context,
    entitled,
    nobody,
    plain_logs,
    redis,
    settings,
    token_of,
)

__all__ = [
    "admin",
    "catalogue",
    "clock",
    "context",
    "entitled",
    "nobody",
    "plain_logs",
    "redis",
    "settings",
    "token_of",
]
