"""Logs as JSON lines on standard error, in both planes. Nobody passes a token, a secret or a body to a logger."""

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TextIO, cast

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from compiled import finder
from compiled.finder import Kind

Line = MutableMapping[str, Any]
"""Of the log, by names."""
_FOLLOWERS: Final[list[Callable[[Line], None]]] = []


def follow(follower: Callable[[Line], None]) -> None:
    """From now on it gets each line before it is written. It may add to it; it must neither wait nor raise."""
    _FOLLOWERS.append(follower)


def unfollow(follower: Callable[[Line], None]) -> None:
    if follower in _FOLLOWERS:
        _FOLLOWERS.remove(follower)


def _followed(_: object, __: str, event: Line) -> Line:
    for follower in _FOLLOWERS:
        follower(event)
    return event


class _Lines:
    """Standard error for logs. A full disk must not fail the work that is logged. A line that was cut is ended before
    the next one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._torn = False

    def write(self, text: str) -> int:
        data = text.encode("utf-8", "backslashreplace")
        if self._torn:
            data = b"\n" + data
        try:
            while data:
                written = os.write(self._descriptor, data)
                self._torn = data[written - 1 : written] != b"\n"
                data = data[written:]
        except OSError:
            pass  # there is no other place to report it
        return len(text)

    def flush(self) -> None: ...


def _standard_error() -> TextIO:
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError):
        return sys.stderr  # a test or a host replaced standard error, and reads the replacement
    return cast("TextIO", _Lines(descriptor))


def log_json(plane: str, level: int = logging.INFO) -> None:
    """Sets up structlog, and writes the log records of libraries in the same form."""
    stream = _standard_error()

    def of_plane(_: object, __: str, event: Line) -> Line:
        event["plane"] = plane  # not as a context variable, which a thread does not inherit
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        of_plane,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Without the frames' variables: a token could be among them.
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        _followed,
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def running_as() -> str:
    """For the log line of a start: whether the modules on the way of each request are the compiled ones. Warns of those
    that do not load."""
    running = finder.install()
    if running.kind is Kind.UNUSABLE:
        structlog.get_logger().warning("the compiled modules do not load", reason=running.detail)
    return str(running)
