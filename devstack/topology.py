"""Which servers a stack has for the ledger."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Topology(StrEnum):
    SINGLE = "single"
    SENTINEL = "sentinel"


PORTS: Final[Mapping[Topology, tuple[str, ...]]] = {
    Topology.SINGLE: ("valkey",),
    Topology.SENTINEL: ("valkey", "valkey-2", "valkey-3", "sentinel-1", "sentinel-2", "sentinel-3"),
}
"""By the names under which a data directory remembers them."""
