"""How long the control API takes, by what is asked of it: for the metrics."""

import re
from collections import Counter
from enum import Enum
from typing import Final

from common.histogram import Histogram


class Group(Enum):
    """The value is a label of the metrics."""

    INGEST = "ingest"
    """Usage is reported."""
    AUTHENTICATION = "authentication"
    """A site activates or refreshes, a token is issued."""
    WEBHOOK = "webhook"
    """Stripe or Clerk tells of something."""
    CONSOLE = "console"
    PORTAL = "portal"
    API = "api"
    """Any other request."""


_TOKENS: Final = re.compile(r"/v1/(?:activations(?:/refresh)?|organizations/[^/]+/tokens)")
_PAGES: Final = (("/console", Group.CONSOLE), ("/portal", Group.PORTAL), ("/api/webhooks/", Group.WEBHOOK))


def group_of(method: str, path: str) -> Group:
    if method == "POST" and path == "/v1/usage":
        return Group.INGEST
    if method == "POST" and _TOKENS.fullmatch(path):
        return Group.AUTHENTICATION
    return next((group for start, group in _PAGES if path.startswith(start)), Group.API)


class RequestTimes:
    def __init__(self) -> None:
        self.durations = {group: Histogram() for group in Group}
        self.answers: Counter[tuple[Group, int]] = Counter()
        """By the first digit of the status."""

    def add(self, method: str, path: str, status: int, seconds: float) -> None:
        """Of a request that was answered, and did not wait for what it watches."""
        group = group_of(method, path)
        self.durations[group].add(seconds)
        self.answers[group, status // 100] += 1
