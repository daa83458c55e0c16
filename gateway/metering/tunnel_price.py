"""What an open tunnel costs, beyond the request that opened it."""

from dataclasses import dataclass

from quota.model import COST_MAX


@dataclass(slots=True, frozen=True)
class TunnelPrice:
    """What a route charges while a tunnel is open."""

    charges: dict[str, int]
    """Meter -> cost of one unit."""
    per_message: bool
    """A unit is a message of the client; else each begun mebibyte of both directions."""

    @property
    def units_max(self) -> int:
        """Of one take."""
        return COST_MAX // max(self.charges.values())
