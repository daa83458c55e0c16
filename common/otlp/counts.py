"""What this process has dropped on its way to a collector. Nothing is imported for it where nothing is sent."""

from collections import Counter
from typing import Final, Protocol


class Dropping(Protocol):
    @property
    def signal(self) -> str: ...
    @property
    def dropped(self) -> int: ...


_EXPORTS: Final[list[Dropping]] = []


def counted(export: Dropping) -> None:
    """From now on it is counted, also when it has ended."""
    _EXPORTS.append(export)


def dropped() -> dict[str, int]:
    """By signal, of those that this process sends or has sent: spans of requests, reports of metrics, lines of logs."""
    counts: Counter[str] = Counter()
    for export in _EXPORTS:
        counts[export.signal] += export.dropped
    return dict(counts)
