"""The kinds of servers that keep the ledger: one, or several that stand in for each other or share it."""

from enum import StrEnum


class Topology(StrEnum):
    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"
