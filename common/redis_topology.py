"""Which servers keep the ledger: one, several that stand in for each other or share it, or one in each region."""

from enum import StrEnum


class Topology(StrEnum):
    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"
    REGIONS = "regions"
