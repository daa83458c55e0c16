"""Which of several regions this control plane works for, and how PostgreSQL, which is one for all, tells them apart."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from quota.keys import SHARDS_MAX

NUMBER_MAX: Final = 99
SEQ_BITS: Final = 24
"""Of an event's place within its millisecond; the region is above them."""
INTEGER_MAX: Final = 2**31 - 1  # of PostgreSQL


@dataclass(frozen=True, slots=True)
class Region:
    """A ledger, its gateways and its control planes. All that was there before regions is of number 0."""

    name: str = ""
    number: int = 0
    part: float = 1.0
    """Of an organization's rates and limits of concurrent requests."""
    before: float = 0.0
    """The parts of all regions with lower numbers."""
    several: bool = False
    """There are others beside it."""

    def stored(self, shard: int) -> int:
        """The number of one of its ledger's shards in PostgreSQL. Modulo `SHARDS_MAX` it is the ledger's again."""
        return SHARDS_MAX * self.number + shard

    def all_stored(self, shards: Iterable[int]) -> list[int]:
        return [self.stored(shard) for shard in shards]

    @property
    def seq_max(self) -> int:
        """The last place within a millisecond that no other region's could be taken for."""
        return (1 << SEQ_BITS) - 1 if self.several else INTEGER_MAX

    def stored_seq(self, seq: int) -> int:
        """Two regions can charge an organization in the same millisecond, as events of the same place."""
        return self.number << SEQ_BITS | seq

    @property
    def incident_prefix(self) -> str:
        """Of the keys of incidents that one region's ledger or gateways show: another region, where all is well, must
        not close them."""
        return f"{self.name}/" if self.several else ""

    def incident_key(self, key: str) -> str:
        return self.incident_prefix + key

    def share(self, whole: int) -> int:
        """Its part of a limit. Those of all regions add up to the whole; at least 1, so they may be more where the
        whole is small."""
        if not self.several:
            return whole
        return max(1, _floor(whole * (self.before + self.part)) - _floor(whole * self.before))


ALONE: Final = Region()


def _floor(number: float) -> int:
    return int(number + 1e-6)  # 10 * 0.29 is a little less than 2.9
